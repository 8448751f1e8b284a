"""Host shelves wait for what they must: with copies that happen as late as they may."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vggt3.inference.shelf import Copies, HostMemory, HostShelf, Incoming

CPU = torch.device("cpu")


class Event:
    """Something that happens when it is waited for, or when the stream behind it must go on."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.done = act, False

    def happen(self) -> None:
        if not self.done:
            self.done = True
            self.act()


class Late(Copies):
    """A stand-in for the two streams: copies happen when they are waited for, not before.

    What leaves is only held by its owner, so a tensor that is let go too early leaves NaN.
    """

    def __init__(self, eager_in: bool) -> None:
        super().__init__(CPU)
        self.eager_in = eager_in
        self.started: list[str] = []

    def begin_in(self, host: Tensor, left: Event | None) -> Incoming:  # type: ignore[override]
        x = torch.full_like(host, torch.nan)

        def act() -> None:
            if left is not None:
                left.happen()
            x.copy_(host)

        event = Event(act)
        if self.eager_in:
            event.happen()
        self.started.append("in")
        return Incoming(x, event)  # type: ignore[arg-type]

    def begin_out(self, x: Tensor, host: Tensor) -> Event:  # type: ignore[override]
        held = weakref.ref(x)
        self.started.append("out")

        def act() -> None:
            found = held()
            host.fill_(torch.nan) if found is None else host.copy_(found)

        return Event(act)

    def wait(self, event: Event | None) -> None:  # type: ignore[override]
        if event is not None:
            event.happen()


@pytest.mark.parametrize("eager_in", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_rounds_of_reading_and_writing(count: int, ahead: int, eager_in: bool) -> None:
    """As the layers use it: rounds that read and replace, rounds that only read."""
    shelf = HostShelf(HostMemory(CPU), Late(eager_in), ahead)
    for n in range(count):
        shelf[n] = torch.full((2, 3), float(n))
    for round_ in range(1, 4):
        for n in range(count):
            x = shelf[n]
            assert (x == n + 10 * (round_ - 1)).all()
            shelf[n] = x + 10
        for n in range(count):
            assert (shelf[n] == n + 10 * round_).all()


@pytest.mark.parametrize("ahead", [1, 3])
def test_what_is_taken_is_gone_and_the_next_is_on_its_way(ahead: int) -> None:
    copies = Late(eager_in=False)
    shelf = HostShelf(HostMemory(CPU), copies, ahead)
    for key in (2, 0, 1, 3):  # rooms are ordered by number, not by time
        shelf[key] = torch.full((key + 1,), float(key))
    copies.started.clear()
    for key in range(4):
        assert (shelf.pop(key) == torch.full((key + 1,), float(key))).all()
        assert copies.started.count("in") == min(4, key + 1 + ahead)
    with pytest.raises(ValueError, match="not in list"):
        shelf.pop(0)


@pytest.mark.parametrize("eager_in", [False, True])
def test_what_was_on_its_way_is_dropped_when_it_is_replaced(eager_in: bool) -> None:
    shelf = HostShelf(HostMemory(CPU), Late(eager_in))
    for n in range(2):
        shelf[n] = torch.zeros(3)
    assert not shelf[0].any()  # and 1 sets off
    shelf[1] = torch.ones(3)
    assert shelf[1].all()


def test_a_tensor_alone_is_not_fetched_twice() -> None:
    copies = Late(eager_in=False)
    shelf = HostShelf(HostMemory(CPU), copies)
    shelf[0] = torch.ones(3)
    assert shelf[0].all()
    assert copies.started == ["out", "in"]


def test_a_room_has_the_layout_of_what_lies_in_it() -> None:
    """A convolution's output may lie channels last; its values and strides come back."""
    host = HostMemory(CPU)
    for x in (
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(6, 5).bfloat16(),
        torch.rand(2, 0, 3),
        torch.rand(4, 6)[:, ::2],  # gaps: comes back without them
    ):
        shelf = HostShelf(host, Copies(CPU))
        shelf[0] = x
        back = shelf.pop(0)
        assert torch.equal(back, x)
        assert back.dtype == x.dtype
        assert back.stride() == torch.empty_like(x).stride()


def test_slabs() -> None:
    """Tensors share page-locked slabs, start at round places and never overlap."""
    host = HostMemory(CPU, slab=4096)
    host.pinned, make = True, torch.empty
    asked = []

    def plain(*size: int, **how: object) -> Tensor:
        asked.append(how.pop("pin_memory"))
        return make(*size, **how)  # type: ignore[call-overload, no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", plain)
        rooms = [host.like(make(300)) for _ in range(6)] + [host.like(make(3000))]
    assert asked == [True] * len(asked)
    assert len(asked) == 3  # 3 of 1280 bytes in a slab of 4096, and one that needs its own
    assert host.taken == 2 * 4096 + 12032
    for n, room in enumerate(rooms):
        room.fill_(n)
    assert all((room == n).all() for n, room in enumerate(rooms))
    assert all(room.data_ptr() % 64 == rooms[0].data_ptr() % 64 for room in rooms)


def test_no_stream_where_there_is_one_memory() -> None:
    assert Copies(CPU).streams is None
    assert not HostMemory(CPU).pinned
