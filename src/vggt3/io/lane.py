"""Work that is done beside the caller's, in order, on one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WAITING = 32
"""Calls that may wait; whoever puts one more waits for the first of them."""


class Lane:
    """Calls functions one after the other on a thread of its own. What one of them raises comes
    out of a later :meth:`put` or of :meth:`close`, and no further one is called."""

    def __init__(self, waiting: int = WAITING) -> None:
        self.waiting = waiting
        self._thread = ThreadPoolExecutor(1)
        self._calls: deque[Future[Any]] = deque()

    def put(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call ``function`` after all that were put before it; what is returned tells when."""
        while self._calls and (self._calls[0].done() or len(self._calls) >= self.waiting):
            self._wait_for_one()
        self._calls.append(self._thread.submit(function, *arguments))
        return self._calls[-1]

    def close(self) -> None:
        """Wait for all."""
        while self._calls:
            self._wait_for_one()
        self._thread.shutdown()

    def abandon(self) -> None:
        """Leave out what has not begun, and wait for what has."""
        self._thread.shutdown(cancel_futures=True)
        self._calls.clear()

    def _wait_for_one(self) -> None:
        try:
            self._calls.popleft().result()
        except BaseException:
            self.abandon()
            raise
