"""Where a scene's tensors lie between two uses: on the device, or in host memory.

A host shelf hands its tensors out as device tensors. On a CUDA device the host side is
page-locked and both directions have a stream of their own: the next tensors come in, and the
last one leaves, while the device works. Elsewhere host and device are one memory and copies are
plain, so that every plan runs anywhere and gives the same bits.
"""

from __future__ import annotations

import time
from bisect import bisect_right, insort

import torch
from torch import Tensor

SLAB = 2**30
"""Bytes that are page-locked at a time. torch rounds page-locked sizes up to a power of two."""
ALIGNMENT = 256
"""Bytes between the starts of two tensors in a slab: a multiple of this."""


class HostMemory:
    """Room in host memory, page-locked where copies to ``device`` gain by it; freed as a whole."""

    def __init__(self, device: torch.device, slab: int = SLAB) -> None:
        self.pinned = device.type == "cuda"
        self.slab = slab
        self.taken = 0
        """Bytes asked of the system so far."""
        self.seconds = 0.0
        """Spent on asking: page-locking is slow, and is done once where runs repeat."""
        self._free = torch.empty(0, dtype=torch.uint8)

    def like(self, x: Tensor) -> Tensor:
        """Unwritten room for ``x``, laid out like it where it has no gaps, else contiguous."""
        size = x.numel() * x.element_size()
        padded = -(-size // ALIGNMENT) * ALIGNMENT
        if padded > self._free.numel():
            count = max(padded, self.slab) if self.pinned else padded
            began = time.perf_counter()
            self._free = torch.empty(count, dtype=torch.uint8, pin_memory=self.pinned)
            self.seconds += time.perf_counter() - began
            self.taken += count
        piece, self._free = self._free[:size], self._free[padded:]
        strides = torch.empty_like(x, device="meta").stride()  # kept where x has no gaps
        return piece.view(x.dtype).as_strided(x.shape, strides)


class Copies:
    """Copies between host and device that overlap with work on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None
        if device.type == "cuda":
            self.streams = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def begin_in(self, host: Tensor, left: torch.cuda.Event | None) -> Incoming:
        """Start a copy to the device, after ``left``, which filled ``host``."""
        if self.streams is None:
            return Incoming(host.to(self.device, copy=True), None)
        stream, current = self.streams[0], torch.cuda.current_stream(self.device)
        x = torch.empty_like(host, device=self.device)
        stream.wait_stream(current)  # what used this room of the device's memory before
        if left is not None:
            stream.wait_event(left)
        with torch.cuda.stream(stream):
            x.copy_(host, non_blocking=True)
            return Incoming(x, stream.record_event())

    def begin_out(self, x: Tensor, host: Tensor) -> torch.cuda.Event | None:
        """Start a copy of ``x``, which must be held until the event that is returned."""
        if self.streams is None:
            host.copy_(x)
            return None
        stream, current = self.streams[1], torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            host.copy_(x, non_blocking=True)
            return stream.record_event()

    def wait(self, event: torch.cuda.Event | None) -> None:
        """Let the device's work go on only after ``event``."""
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)

    def finish(self) -> None:
        """Wait until nothing is on its way: memory of either side may then be let go."""
        for stream in self.streams or ():
            stream.synchronize()


class Incoming:
    """A tensor on its way to the device."""

    def __init__(self, x: Tensor, arrived: torch.cuda.Event | None) -> None:
        self.x, self.arrived = x, arrived


class HostShelf:
    """Tensors by number in host memory. They are asked for in rising order, round by round, and
    the next ``ahead`` of them are on their way to the device when one is handed out; in the last
    round they are popped, so that none is on its way when the shelf goes."""

    def __init__(self, host: HostMemory, copies: Copies, ahead: int = 1) -> None:
        self.host, self.copies, self.ahead = host, copies, ahead
        self._order: list[int] = []
        self._rooms: dict[int, Tensor] = {}
        self._left: dict[int, torch.cuda.Event | None] = {}
        self._incoming: dict[int, Incoming] = {}
        self._leaving: tuple[int, Tensor] | None = None

    def __setitem__(self, key: int, x: Tensor) -> None:
        """Put a tensor of the device; one of the same shape and type may replace it later."""
        if key not in self._rooms:
            insort(self._order, key)
            self._rooms[key] = self.host.like(x)
        stale = self._incoming.pop(key, None)
        if stale is not None:
            self.copies.wait(stale.arrived)
        self._release()
        self._left[key] = self.copies.begin_out(x, self._rooms[key])
        self._leaving = key, x

    def __getitem__(self, key: int) -> Tensor:
        """The tensor on the device."""
        found = self._incoming.pop(key, None) or self._fetch(key)
        self.copies.wait(found.arrived)
        for following in self._following(key):
            if following not in self._incoming:
                self._incoming[following] = self._fetch(following)
        return found.x

    def pop(self, key: int) -> Tensor:
        """The tensor on the device, for the last time; its room is not used again."""
        self._order.remove(key)
        x = self[key]
        del self._rooms[key], self._left[key]
        return x

    def _fetch(self, key: int) -> Incoming:
        return self.copies.begin_in(self._rooms[key], self._left[key])

    def _following(self, key: int) -> list[int]:
        start = bisect_right(self._order, key)
        turned = self._order[start:] + self._order[:start]
        return [k for k in turned[: self.ahead] if k != key]

    def _release(self) -> None:
        """Let go of the tensor that left last: its memory is free once the copy is done."""
        if self._leaving is not None:
            self.copies.wait(self._left.get(self._leaving[0]))
            self._leaving = None
