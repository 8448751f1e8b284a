"""From the device to whoever takes the results, while the device works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import torch
from torch import Tensor

from vggt3.inference.shelf import Copies
from vggt3.io.lane import Lane
from vggt3.types import Cameras, DenseView

ROOMS = 3
"""Chunks on their way: one that is copied, one that is given, one that is free next."""


class Sink(Protocol):
    """Whoever takes the results: cameras once, then every view's dense maps."""

    def cameras(self, cameras: Cameras) -> None:
        """Take the cameras of all views, in scene order, on the CPU."""

    def add(self, view: DenseView) -> None:
        """Take one view's maps; views come in any order.

        On the CPU, unless the sink has an attribute ``on_device`` that is true. Their memory is
        used again after the call: copy what is kept.
        """


class Handover:
    """Gives each chunk's maps to a sink view by view.

    On a CUDA device a chunk is copied into page-locked memory and given from a thread of its own,
    both beside the work on the next ones.
    """

    def __init__(self, sink: Sink, copies: Copies) -> None:
        self.sink, self.copies = sink, copies
        self.direct = copies.streams is None or bool(getattr(sink, "on_device", False))
        self.lane = Lane(ROOMS)
        pinned = copies.device.type == "cuda"
        self.rooms: deque[Room] = deque(Room(pinned) for _ in range(ROOMS))

    def give(self, ids: Sequence[int], maps: Sequence[Tensor]) -> None:
        """Hand over depth, its confidence, points and theirs, [V_c, …] each."""
        if self.direct:
            self._add(ids, maps)
            return
        room = self.rooms[0]
        self.rooms.rotate(-1)
        if room.given is not None:
            room.given.result()
        local, event = [], None
        for n, x in enumerate(maps):
            local.append(room.like(n, x))
            event = self.copies.begin_out(x, local[-1])
        room.given = self.lane.put(self._arrived, ids, local, event, maps)

    def finish(self) -> None:
        """Wait until all has been given."""
        self.lane.close()

    def abandon(self) -> None:
        """Give nothing more: what was computed has failed."""
        self.lane.abandon()

    def _arrived(
        self,
        ids: Sequence[int],
        maps: Sequence[Tensor],
        event: torch.cuda.Event | None,
        held: Sequence[Tensor],
    ) -> None:
        """Give what has been copied; the device's own, ``held``, are free when it has left."""
        if event is not None:
            event.synchronize()
        self._add(ids, maps)

    def _add(self, ids: Sequence[int], maps: Sequence[Tensor]) -> None:
        for n, index in enumerate(ids):
            self.sink.add(DenseView(index, *(x[n] for x in maps)))


class Room:
    """Page-locked memory for one chunk's maps."""

    def __init__(self, pinned: bool) -> None:
        self.pinned = pinned
        self.held: dict[int, Tensor] = {}
        self.given: Future[None] | None = None
        """Done when the sink has had what lies here."""

    def like(self, n: int, x: Tensor) -> Tensor:
        """Room for the n-th map, laid out like ``x``."""
        found = self.held.get(n)
        if found is None or found.numel() < x.numel():
            found = torch.empty(x.numel(), dtype=x.dtype, pin_memory=self.pinned)
            self.held[n] = found
        return found[: x.numel()].view(x.shape)
