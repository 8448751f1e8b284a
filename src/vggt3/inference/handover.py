"""From the device to whoever takes the results, while the device works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from vggt3.inference.shelf import Copies
from vggt3.types import Cameras, DenseView


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

    On a CUDA device a chunk is copied into page-locked memory beside the work on the next one, and
    given when that has been started.
    """

    def __init__(self, sink: Sink, copies: Copies) -> None:
        self.sink, self.copies = sink, copies
        self.direct = copies.streams is None or bool(getattr(sink, "on_device", False))
        self.rooms: list[dict[int, Tensor]] = [{}, {}]
        self.waiting: tuple[Sequence[int], list[Tensor], torch.cuda.Event | None] | None = None

    def give(self, ids: Sequence[int], maps: Sequence[Tensor]) -> None:
        """Hand over depth, its confidence, points and theirs, [V_c, …] each."""
        if self.direct:
            self._add(ids, maps)
            return
        event, local = None, []
        for n, x in enumerate(maps):
            local.append(self._room(n, x))
            event = self.copies.begin_out(x, local[-1])
            x.record_stream(self.copies.streams[1])  # type: ignore[index]
        earlier, self.waiting = self.waiting, (ids, local, event)
        self._deliver(earlier)
        self.rooms.reverse()

    def finish(self) -> None:
        """Give what is still on its way."""
        earlier, self.waiting = self.waiting, None
        self._deliver(earlier)

    def _room(self, n: int, x: Tensor) -> Tensor:
        """Page-locked room for one of the maps: not the one that is being given."""
        found = self.rooms[0].get(n)
        if found is None or found.numel() < x.numel():
            found = torch.empty(x.numel(), dtype=x.dtype, pin_memory=True)
            self.rooms[0][n] = found
        return found[: x.numel()].view(x.shape)

    def _deliver(
        self, chunk: tuple[Sequence[int], list[Tensor], torch.cuda.Event | None] | None
    ) -> None:
        if chunk is not None:
            ids, maps, event = chunk
            if event is not None:
                event.synchronize()
            self._add(ids, maps)

    def _add(self, ids: Sequence[int], maps: Sequence[Tensor]) -> None:
        for n, index in enumerate(ids):
            self.sink.add(DenseView(index, *(x[n] for x in maps)))
