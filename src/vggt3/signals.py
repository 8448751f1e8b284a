"""The signals that end this process in order, and what they must not come into."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""What ends a process in order: Ctrl-C, a polite kill, a closed terminal."""


@contextmanager
def unbroken() -> Iterator[None]:
    """Let the signals that end this process wait until the block has ended: no second Ctrl-C cuts
    short what the first one began to clean up. Who heeds them is then who was before."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python interrupts no other
        return
    came: list[int] = []
    # None: a handler in C, which could not be put back.
    known = {n: heed for n in STOPS if (heed := signal.getsignal(n)) is not None}
    try:
        for number, heed in known.items():
            if heed != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        try:
            _heed(known)
        except BaseException:
            _heed(known)  # one came as soon as it could
            raise
        for number in came:
            signal.raise_signal(number)


def _heed(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def import_pycolmap() -> Any:
    """pycolmap; what its import sets to end this process on the spot, when it is asked to end, is
    taken back, since nobody would clean up.

    Raises:
        ImportError: it is not there.
    """
    with unbroken():
        return importlib.import_module("pycolmap")
