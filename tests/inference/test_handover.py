"""Maps come to the sink whole, once, from memory that is used again; its errors come out."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from vggt3.inference.handover import ROOMS, Handover
from vggt3.inference.shelf import Copies
from vggt3.types import Cameras, DenseView

CPU = torch.device("cpu")


class Leaving:
    """A copy that is done when somebody waits for it."""

    def __init__(self, x: Tensor, host: Tensor) -> None:
        self.x, self.host = x, host

    def synchronize(self) -> None:
        self.host.copy_(self.x)


class Streams(Copies):
    """A device with streams, played on a CPU."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.streams = (None, None)  # type: ignore[assignment]

    def begin_out(self, x: Tensor, host: Tensor) -> Any:
        host.copy_(x)
        return Leaving(x, host)


class Slow:
    """A sink that takes its time and sees what it was given."""

    def __init__(self, fails_at: int = -1) -> None:
        self.found: dict[int, float] = {}
        self.threads: set[int] = set()
        self.fails_at = fails_at

    def cameras(self, cameras: Cameras) -> None:
        raise AssertionError

    def add(self, view: DenseView) -> None:
        time.sleep(0.002)
        self.threads.add(threading.get_ident())
        if view.index == self.fails_at:
            raise OSError(28, "No space left on device")
        maps = (view.depth, view.depth_confidence, view.points[..., 0], view.points_confidence)
        values = {float(x.unique()) for x in maps}
        assert len(values) == 1
        self.found[view.index] = values.pop()


def chunk(first: int, count: int) -> tuple[range, list[Tensor]]:
    """Maps of the views' own numbers."""
    ids = range(first, first + count)
    flat = torch.tensor(list(ids), dtype=torch.float32)[:, None, None].expand(-1, 3, 5)
    return ids, [flat, flat.clone(), flat[..., None].expand(-1, -1, -1, 3), flat.clone()]


@pytest.mark.parametrize("streams", [True, False])
def test_every_view_comes_once_and_whole(streams: bool) -> None:
    sink = Slow()
    out = Handover(sink, Streams() if streams else Copies(CPU))
    for n in range(3 * ROOMS):
        out.give(*chunk(4 * n, 4 if n % 2 else 3))  # of different sizes, as the last one is
    out.finish()
    assert sink.found == {n: float(n) for n in sink.found}
    assert len(sink.found) == sum(4 if n % 2 else 3 for n in range(3 * ROOMS))
    assert (threading.get_ident() in sink.threads) != streams


def test_a_sink_that_fails_is_heard() -> None:
    out = Handover(Slow(fails_at=5), Streams())
    with pytest.raises(OSError, match="No space left"):
        for n in range(20):
            out.give(*chunk(4 * n, 4))
        out.finish()
    out.abandon()


def test_a_sink_may_take_maps_where_they_are() -> None:
    sink = Slow()
    sink.on_device = True  # type: ignore[attr-defined]
    out = Handover(sink, Streams())
    out.give(*chunk(0, 2))
    assert sink.threads == {threading.get_ident()} and len(sink.found) == 2
