"""What a scene's memory is made of: states that are read, deltas that add up to the next state.

Both are frozen records of named tensors that refer to no module, so two scenes can be open at
once, and a state can be saved, moved and measured without knowing which backend made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vggt3.distributed import World

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """One layer's memory of a scene at one moment; what views read, and write relative to."""

    tensors: Tensors = field(default_factory=dict)
    """Fast weights [B, H, rows, columns], sums, or lists of keys [B, N, …]; batch first."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Small facts such as the sweep reached and the number of views V of the whole scene."""
    bounded: bool = True
    """Whether the bytes of a settled state stay the same however many views are written."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors as stored (an expanded tensor counts its full size)."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """The same state with ``function`` applied to every tensor."""
        return replace(self, tensors={k: function(t) for k, t in self.tensors.items()})

    def to(self, device: torch.device | str) -> State:
        """The same state on ``device``."""
        return self.map(lambda tensor: tensor.to(device))

    def updated(self, tensors: Tensors, **numbers: int) -> State:
        """The next state: some tensors and numbers replaced, the rest kept."""
        return replace(
            self, tensors={**self.tensors, **tensors}, numbers={**self.numbers, **numbers}
        )


@dataclass(frozen=True)
class Delta:
    """What some views contribute in one sweep. Deltas of one sweep add; states never do.

    ``sums`` add elementwise. ``lists`` [B, N, …] concatenate along dim 1 (their addition). The
    delta of no views is zero: sums of zeros, lists of length 0.
    """

    sums: Tensors = field(default_factory=dict)
    lists: Tensors = field(default_factory=dict)

    def __add__(self, other: Delta) -> Delta:
        return Delta.total((self, other))

    @staticmethod
    def total(deltas: Iterable[Delta]) -> Delta:
        """The sum of at least one delta, taken in order; lists are concatenated once."""
        sums: dict[str, Tensor] = {}
        lists: dict[str, list[Tensor]] = {}
        first: Delta | None = None
        for delta in deltas:
            if first is None:
                first, sums, lists = delta, dict(delta.sums), {k: [] for k in delta.lists}
            elif delta.sums.keys() != sums.keys() or delta.lists.keys() != lists.keys():
                raise ValueError(
                    "deltas must hold the same names to add, got "
                    f"{sorted([*sums, *lists])} and {sorted([*delta.sums, *delta.lists])}"
                )
            else:
                sums = {k: t + delta.sums[k] for k, t in sums.items()}
            for name, tensor in delta.lists.items():
                lists[name].append(tensor)
        if first is None:
            raise ValueError("the total of deltas must have at least one, got none")
        return Delta(
            sums, {k: t[0] if len(t) == 1 else torch.cat(t, dim=1) for k, t in lists.items()}
        )

    def all_reduce(self, world: World) -> Delta:
        """The total over the ranks: one all-reduce for all sums, one gather for each list."""
        if world.size == 1:
            return self
        sums = dict(self.sums)
        if sums:
            flat = world.sum(torch.cat([t.reshape(-1) for t in sums.values()]))
            pieces = flat.split([t.numel() for t in sums.values()])
            sums = {
                k: piece.view(t.shape).to(t.dtype)
                for (k, t), piece in zip(self.sums.items(), pieces, strict=True)
            }
        return Delta(sums, {k: world.gather(t, dim=1) for k, t in self.lists.items()})
