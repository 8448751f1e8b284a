"""The only place that words an input error.

Every message names the thing, what was wanted and what came:
``"{name} must {wanted}, got {got}"``. The command line turns these exceptions into one line on
stderr and an exit code; Python callers catch them as :class:`ValueError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn


class InputError(ValueError):
    """Something the caller gave cannot be used. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(InputError):
    """An option or argument is wrong: nothing was started (exit code 2)."""

    exit_code = 2


class DataError(InputError):
    """A file or a folder does not hold what it should (exit code 1)."""


class PlanError(InputError):
    """The work does not fit the memory that was allowed (exit code 1)."""


class RankError(InputError):
    """A process that shares the work with this one is gone or has failed (exit code 1)."""


def fail(name: str, wanted: str, got: object, *, error: type[InputError] = UsageError) -> NoReturn:
    """Raise ``error`` saying that ``name`` must ``wanted`` but ``got`` came."""
    raise error(f"{name} must {wanted}, got {got}")


def require(
    condition: bool,
    name: str,
    wanted: str,
    got: object,
    *,
    error: type[InputError] = UsageError,
) -> None:
    """Raise unless ``condition`` holds; see :func:`fail`."""
    if not condition:
        fail(name, wanted, got, error=error)


def reason(error: Exception) -> str:
    """Why a file could not be read, on one line and in a reader's words, not in Python's."""
    if isinstance(error, OSError):
        return error.strerror or "an error of the system"
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}" if error.args else "a key that is missing"
    if isinstance(error, (TypeError, AttributeError, IndexError)):
        return "values of another kind"
    return " ".join(str(error).split()) or "something else"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known spelling closest to ``name``, or None if nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``known``; otherwise list them and the nearest."""
    options = sorted(known)
    if name in options:
        return name
    close = nearest(name, options)
    hint = f" (did you mean '{close}'?)" if close else ""
    fail(kind, f"be one of {', '.join(options)}", f"'{name}'{hint}")


def shape_of(name: str, shape: tuple[int, ...], pattern: str) -> dict[str, int]:
    """Check a tensor's shape against a pattern such as ``"B V 3 H W"``; return the letters.

    A number in the pattern must be met exactly; a letter that recurs must have one size.
    """
    parts = pattern.split()
    wanted = f"have shape [{', '.join(parts)}]"
    sizes: dict[str, int] = {}
    if len(parts) != len(shape):
        fail(name, wanted, list(shape))
    for part, size in zip(parts, shape, strict=True):
        expected = int(part) if part.isdigit() else sizes.setdefault(part, size)
        if expected != size:
            fail(name, wanted, list(shape))
    return sizes
