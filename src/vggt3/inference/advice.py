"""What is advised where a scene does not fit, in the words of the command that is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vggt3 import checks

SMALLER = "a smaller --long-side"
"""On images; :func:`advising` says something else."""
FEWER = "fewer views"
"""On how many."""


@contextmanager
def advising(smaller: str | None = None, fewer: str = FEWER) -> Iterator[None]:
    """Advise what a command has in place of ``--long-side`` (nothing where None) and of views."""
    try:
        yield
    except checks.PlanError as error:
        told = str(error)
        if smaller is None:
            told = told.replace(f"{SMALLER}, {FEWER}", FEWER)
        told = told.replace(SMALLER, smaller or SMALLER).replace(FEWER, fewer)
        raise checks.PlanError(told) from error
