"""What is advised where a scene does not fit, in the words of the command that is used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from vggt3 import checks

SMALLER = "a smaller --long-side"
FEWER = "fewer views"
MEMORY = "more --memory"
"""Things that commands with these options can be given; :func:`advising` says others."""

_GIVEN = re.compile(r"; give (.*)$")


def give(things: Sequence[str]) -> str:
    """``give A, B, or C``."""
    listed = ", ".join(things[:-1])
    return f"give {listed}, or {things[-1]}" if listed else f"give {things[-1]}"


@contextmanager
def advising(instead: Mapping[str, str | None]) -> Iterator[None]:
    """Advise other things where a command has not all options; None is nothing in its place."""
    try:
        yield
    except checks.PlanError as error:
        raise checks.PlanError(
            _GIVEN.sub(lambda found: _said(found[1], instead), str(error))
        ) from error


def _said(listed: str, instead: Mapping[str, str | None]) -> str:
    things = re.split(r", or |, ", listed)
    named = [name for thing in things if (name := instead.get(thing, thing)) is not None]
    return f"; {give(named)}" if named else ""
