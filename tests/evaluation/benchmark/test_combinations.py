"""Which combinations are meant, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vggt3 import checks
from vggt3.evaluation.benchmark.combinations import Combinations
from vggt3.model.config import SMALL, VGGT_1B


def test_sweeps_are_an_axis_of_those_that_have_them() -> None:
    what = Combinations(
        preset="tiny",
        attention="softmax,ttt_mlp",
        sweeps="1,auto",
        attention_options={"hidden": 2},
    )
    found = [(v.attention, v.sweeps, v.options) for v in what.variants(on_gpu=False)]
    assert found == [
        ("softmax", None, ()),
        ("ttt_mlp", 1, (("hidden", 2),)),
        ("ttt_mlp", "auto", (("hidden", 2),)),
    ]
    last = what.variants(on_gpu=False)[-1].choice
    assert last.attention_options == {"hidden": 2, "sweeps": "auto"}


def test_a_schedule_is_one_variant() -> None:
    schedule = "0-1:softmax,2-3:ttt_mlp"
    what = Combinations(preset="tiny", attention_options={"schedule": schedule}, sweeps="2")
    (only,) = what.variants(on_gpu=False)
    assert (only.attention, only.sweeps) == (schedule, 2)
    assert only.choice.attention_options == {"schedule": schedule, "sweeps": 2}


def test_defaults_suit_the_device() -> None:
    what = Combinations()
    assert what.view_counts(on_gpu=True) == [100, 500, 1000]
    assert max(what.view_counts(on_gpu=False)) <= 24
    assert what.model(on_gpu=True)[1].preset == "vggt_1b"
    assert what.model(on_gpu=False)[1].preset == "small"
    assert what.sizes(VGGT_1B) == [(392, 518)]
    assert what.sizes(SMALL) == [(168, 224)]


def test_lists_are_sorted_and_said_once() -> None:
    what = Combinations(views="8, 2,8", size="28x42,14×14")
    assert what.view_counts(on_gpu=False) == [2, 8]
    assert what.sizes(SMALL) == [(14, 14), (28, 42)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"views": "0"}, "--views must be whole numbers from 1, got '0'"),
        ({"views": "8,,9"}, "--views must be a list separated by commas"),
        ({"views": "-3"}, "--views must"),
        ({"sweeps": "once"}, "--sweeps must be whole numbers from 1 or auto, got 'once'"),
        ({"size": "392"}, "--size must be HEIGHTxWIDTH in multiples of 14"),
        ({"size": "392x500"}, "--size must be HEIGHTxWIDTH in multiples of 14"),
        ({"repeat": 0}, "--repeat must be at least 1"),
        ({"attention": "softmax,linaer"}, "did you mean 'linear'"),
        ({"attention_options": {"sweeps": 2}}, "--attention.sweeps must be given as --sweeps"),
        ({"attention_options": {"hiden": 2}, "preset": "tiny"}, "did you mean 'hidden'"),
        ({"attention_options": {"hidden": "x"}, "preset": "tiny"}, "--attention.hidden must be"),
        ({"preset": "huge"}, "--preset must be one of"),
        ({"preset": "tiny", "weights": "small"}, "leave --weights out"),
    ],
)
def test_bad_input(given: dict[str, Any], message: str) -> None:
    with pytest.raises(checks.UsageError) as told:
        Combinations(**given).variants(on_gpu=False)
    assert message in str(told.value)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(checks.InputError):
        Combinations(weights=str(tmp_path / "none.safetensors")).variants(on_gpu=False)
