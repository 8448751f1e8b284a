"""The processes that hold one scene: sums and gathers over them, with gradient.

A scene's views may be sharded over any number of ranks, unevenly, and a rank may hold none.
Only two things ever cross between ranks: deltas (one all-reduce or one gather a layer and sweep)
and the camera tokens. The backward of a sum is the sum: each rank's loss is its local share, the
total is the sum over ranks, so every gradient that crosses is summed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vggt3 import checks

T = TypeVar("T")

ENDED = "vggt3/ended"
"""In torchrun's store: what the first process ended with before there was a group."""
ATTEMPT = "TORCHELASTIC_RESTART_COUNT"
TO_END = timedelta(seconds=5)
"""For the first process to end with what another one has ended with already."""


def told_once(message: str, tell: Callable[[], None]) -> None:
    """``tell`` with what error this process ends, unless torchrun's first one has told the same.

    Before there is a group they hear of each other through the store that torchrun itself holds;
    where there is none, or the first has no such error, each tells. With a group it is the
    watch's to say who does.
    """
    store = None
    if dist.is_available() and not dist.is_initialized():
        with suppress(OSError, RuntimeError, ValueError):
            store = _torchruns_store()
    first, key = os.environ.get("RANK") == "0", f"{ENDED}/{os.environ.get(ATTEMPT, '0')}"
    heard = None
    if store is not None and not first:
        with suppress(RuntimeError):
            store.wait([key], TO_END)
            heard = store.get(key)
    if heard != message.encode():
        tell()
    if store is not None and first:  # having told, for torchrun ends it when another one ends
        with suppress(RuntimeError):
            store.set(key, message)


def _torchruns_store() -> Any:
    """The store of torchrun's agent, None where it has none."""
    given = os.environ.get
    if given("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    place = given("MASTER_ADDR", ""), int(given("MASTER_PORT", ""))
    made: Any = dist.TCPStore  # type: ignore[attr-defined]
    return made(*place, timeout=TO_END, wait_for_workers=False)


class _Sum(torch.autograd.Function):
    """All-reduce (sum); its backward is the same sum of the incoming gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.group = world.group
        total = tensor.contiguous().clone()
        with world.crossing():
            dist.all_reduce(total, group=world.group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Gather(torch.autograd.Function):
    """Concatenate uneven shards along dim 0; backward sums over ranks, then takes its slice."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int], world: World) -> Tensor:
        rank, group = world.rank, world.group
        ctx.start, ctx.size, ctx.group = sum(sizes[:rank]), sizes[rank], group
        longest = max(sizes)
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: tensor.shape[0]] = tensor
        shards = [torch.zeros_like(padded) for _ in sizes]
        with world.crossing():
            dist.all_gather(shards, padded, group=group)
        return torch.cat([shard[:size] for shard, size in zip(shards, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.start : ctx.start + ctx.size], None, None


@dataclass(frozen=True)
class World:
    """The ranks among which one scene's views are shared; the default is this process alone."""

    rank: int = 0
    size: int = 1
    group: Any = None
    """A torch.distributed process group; None with size > 1 means the default group."""

    @classmethod
    def current(cls) -> World:
        """The default process group if torch.distributed is running, else this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of ``tensor`` (one shape on all ranks) over the ranks, differentiable."""
        if self.size == 1:
            return tensor
        result: Tensor = _Sum.apply(tensor, self)  # type: ignore[no-untyped-call]
        return result

    def gather(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The ranks' tensors concatenated along ``dim`` in rank order, differentiable.

        Shards may differ in size along ``dim``, zero included, and in nothing else.
        """
        if self.size == 1:
            return tensor
        counts = self.counts(tensor.shape[dim], tensor.device)
        front = tensor.movedim(dim, 0).contiguous()
        whole: Tensor = _Gather.apply(front, counts, self)  # type: ignore[no-untyped-call]
        return whole.movedim(0, dim)

    def crossing(self) -> AbstractContextManager[object]:
        """Around the moment in which tensors cross, when what memory it takes is there."""
        return nullcontext()

    def counts(self, count: int, device: torch.device) -> list[int]:
        """Every rank's ``count``; told through tensors on ``device``."""
        local = torch.tensor([count], device=device)
        found = [torch.zeros_like(local) for _ in range(self.size)]
        dist.all_gather(found, local, group=self.group)
        return [int(each) for each in found]

    def exchange(self, value: T) -> list[T]:
        """Every rank's ``value``, in rank order: anything small that pickles."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def agreed(self, action: Callable[[], T]) -> list[T]:
        """What ``action`` gives on every rank, in rank order.

        Raises:
            InputError, OSError: ``action`` raised it on some rank. Each of these ranks raises its
                own, the others that of the first of them.
        """
        if self.size == 1:
            return [action()]
        own: Exception | None = None
        value: Any = None
        try:
            value = action()
        except (checks.InputError, OSError) as error:
            own = error
        found = self.exchange((value, own))
        if own is not None:
            raise own
        for rank, (_, other) in enumerate(found):
            if isinstance(other, checks.InputError):
                raise type(other)(f"{other} (on rank {rank})")
            if other is not None:
                raise other
        return [each for each, _ in found]

    def share(self, views: int) -> tuple[int, int]:
        """First and one-past-last view of this rank when ``views`` are dealt evenly in order."""
        base, extra = divmod(views, self.size)
        start = self.rank * base + min(self.rank, extra)
        return start, start + base + (self.rank < extra)


ALONE = World()
"""One process that holds every view."""
