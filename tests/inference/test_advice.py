"""Advice in the words of the command."""

from __future__ import annotations

import pytest

from vggt3.checks import PlanError
from vggt3.inference.advice import FEWER, MEMORY, SMALLER, advising, give


@pytest.mark.parametrize(
    ("things", "instead", "told"),
    [
        ([SMALLER, FEWER, MEMORY], {}, f"; give {SMALLER}, {FEWER}, or {MEMORY}"),
        ([SMALLER, MEMORY], {SMALLER: None}, f"; give {MEMORY}"),
        ([SMALLER, FEWER, MEMORY], {SMALLER: "a smaller --size", MEMORY: None},
         f"; give a smaller --size, or {FEWER}"),
        ([MEMORY], {MEMORY: None}, ""),
    ],
)  # fmt: skip
def test_what_cannot_be_given_is_not_advised(
    things: list[str], instead: dict[str, str | None], told: str
) -> None:
    with pytest.raises(PlanError) as raised, advising(instead):
        raise PlanError(f"the plan must fit 1 MiB, got 2 MiB at least; {give(things)}")
    assert str(raised.value) == "the plan must fit 1 MiB, got 2 MiB at least" + told
