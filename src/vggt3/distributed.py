"""The processes that hold one scene: sums and gathers over them, with gradient.

A scene's views may be sharded over any number of ranks, unevenly, and a rank may hold none.
Only two things ever cross between ranks: deltas (one all-reduce or one gather a layer and sweep)
and the camera tokens. The backward of a sum is the sum: each rank's loss is its local share, the
total is the sum over ranks, so every gradient that crosses is summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Sum(torch.autograd.Function):
    """All-reduce (sum); its backward is the same sum of the incoming gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = tensor.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Gather(torch.autograd.Function):
    """Concatenate uneven shards along dim 0; backward sums over ranks, then takes its slice."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int], rank: int, group: Any) -> Tensor:
        ctx.start, ctx.size, ctx.group = sum(sizes[:rank]), sizes[rank], group
        longest = max(sizes)
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: tensor.shape[0]] = tensor
        shards = [torch.zeros_like(padded) for _ in sizes]
        dist.all_gather(shards, padded, group=group)
        return torch.cat([shard[:size] for shard, size in zip(shards, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.start : ctx.start + ctx.size], None, None, None


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
        result: Tensor = _Sum.apply(tensor, self.group)  # type: ignore[no-untyped-call]
        return result

    def gather(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The ranks' tensors concatenated along ``dim`` in rank order, differentiable.

        Shards may differ in size along ``dim``, zero included, and in nothing else.
        """
        if self.size == 1:
            return tensor
        local = torch.tensor([tensor.shape[dim]], device=tensor.device)
        sizes = [torch.zeros_like(local) for _ in range(self.size)]
        dist.all_gather(sizes, local, group=self.group)
        counts = [int(size) for size in sizes]
        front = tensor.movedim(dim, 0).contiguous()
        arguments = (front, counts, self.rank, self.group)
        whole: Tensor = _Gather.apply(*arguments)  # type: ignore[no-untyped-call]
        return whole.movedim(0, dim)

    def share(self, views: int) -> tuple[int, int]:
        """First and one-past-last view of this rank when ``views`` are dealt evenly in order."""
        base, extra = divmod(views, self.size)
        start = self.rank * base + min(self.rank, extra)
        return start, start + base + (self.rank < extra)


ALONE = World()
"""One process that holds every view."""
