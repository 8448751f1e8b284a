"""The contract of a global-attention backend: survey, begin, project, write, settle, read.

A scene is a memory that views write to and read from. The model and the engine know nothing
else about a backend, which is why chunks, ranks, mixed sizes, saving a scene and localising
new photos in it work for every backend alike. All steps are pure functions of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from vggt3 import checks
from vggt3.attention.memory import Delta, State
from vggt3.attention.rope import Rope


@dataclass(frozen=True)
class Context:
    """What a chunk's tokens are: V_c views of one patch grid."""

    ids: tuple[int, ...]
    """V_c places in the scene's order."""
    grid: tuple[int, int]
    """Rows and columns of patches; the patches are the last rows·columns tokens of a view."""
    rope: Rope
    """Rotation of each of a view's P tokens."""
    weight: Tensor | None = None
    """[B, V_c, P] write weight of each token; 0 is absence; None is all 1."""
    plan: State | None = None
    """What this layer's backend found in its survey of all views."""

    @property
    def tokens(self) -> int:
        """P: tokens of a view, camera and register tokens included."""
        return self.rope.cos.shape[0]

    @property
    def special(self) -> int:
        """Camera and register tokens in front of a view's patches."""
        return self.tokens - self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Projection:
    """What a backend made of a chunk's tokens: queries, keys, values, rates, …"""

    tensors: Mapping[str, Tensor]
    """As the backend likes; those of the shipped ones are [B, H, N, …] with N = V_c·P."""
    views: int
    """V_c"""
    context: Context = field(repr=False)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


class Backend(nn.Module):
    """One layer's global attention. Subclasses set ``name`` and define the four steps.

    Options are the keyword-only arguments of ``__init__`` after ``width, heads, layer``.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    linear: bool = True
    """Whether time grows linearly with the number of views; a test counts."""

    def __init__(self, width: int, heads: int, layer: int = 0) -> None:
        super().__init__()
        self.width, self.heads, self.layer = width, heads, layer
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def survey(
        self,
        descriptors: Tensor,  # [B, V, E] unit-length descriptors of all views
    ) -> State | None:
        """What must be known of every view before anyone writes; independent of their order
        but for the first. None (the default) where nothing is."""
        return None

    def begin(
        self, views: int, batch: int, device: torch.device, plan: State | None = None
    ) -> State:
        """The state before the first sweep of a scene of ``views`` views."""
        raise NotImplementedError

    def project(self, tokens: Tensor, context: Context) -> Projection:
        """Per view: [B, V_c, P, C] normalised tokens → queries, keys, values."""
        raise NotImplementedError

    def write(self, projection: Projection, state: State) -> Delta:
        """What these views contribute to this sweep; deltas add over chunks and ranks."""
        raise NotImplementedError

    def settle(self, state: State, delta: Delta) -> tuple[State, bool]:
        """The state after a sweep, and whether every view should write once more."""
        raise NotImplementedError

    def read(self, projection: Projection, state: State) -> Tensor:
        """Per view: what its queries find in the memory, projected: [B, V_c, P, C]."""
        raise NotImplementedError

    def extend(self, state: State, delta: Delta, share: float) -> State:
        """A settled state to which further views wrote ``delta`` once; ``share`` is theirs of all
        tokens that it then holds. By default sums add up and lists grow, which weighs by itself."""
        odd = sorted({*delta.sums, *delta.lists} ^ set(state.tensors))
        told = "define extend, since its settled states are no sums or lists of what is written"
        checks.require(not odd, f"attention {self.name}", told, f"{', '.join(odd)} in one only")
        sums = {name: state[name] + tensor for name, tensor in delta.sums.items()}
        lists = {k: torch.cat([state[k], t.to(state[k])], dim=1) for k, t in delta.lists.items()}
        return state.updated({**sums, **lists})

    def recall(self, projection: Projection, state: State) -> Tensor | None:
        """How well the state gives back what these views would write: the cosine between what
        their own keys find and their own values, [B, V_c, P]. None where that has no meaning."""
        return None

    def start_from(self, softmax: Mapping[str, Tensor]) -> None:
        """Begin as close to a softmax layer as the backend can: by default its qkv and proj."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name in softmax and name.split(".")[0] in ("qkv", "proj"):
                    parameter.copy_(softmax[name])


def split_heads(
    x: Tensor,  # [B, V, P, C]
    heads: int,
) -> Tensor:
    """[B, V, P, C] → [B, H, V, P, D]."""
    return x.unflatten(-1, (heads, -1)).movedim(-2, 1)


def merge_heads(
    x: Tensor,  # [B, H, N, D] with N = V·P
    projection: Projection,
) -> Tensor:
    """[B, H, V·P, D] → [B, V, P, C]."""
    shape = (x.shape[0], projection.views, projection.context.tokens, -1)
    x = x.transpose(1, 2).flatten(2)
    return x.reshape(*shape[:3], x.shape[-1])


def agreement(
    found: Tensor,  # [B, H, N, D] what keys find, N = V·P
    values: Tensor,  # [B, H, N, D]
    projection: Projection,
) -> Tensor:
    """Cosine between two lists of values, mean over the heads: [B, V, P] fp32."""
    cosine = cosine_similarity(found.float(), values.float(), dim=-1)  # [B, H, N]
    return cosine.mean(dim=1).unflatten(1, (projection.views, projection.context.tokens))


def as_given(device: torch.device) -> AbstractContextManager[object]:
    """A region without autocast: products keep the dtype of what is multiplied, so sums in fp32
    stay fp32. Does nothing on devices that have no autocast (meta, on which costs are counted)."""
    if device.type == "meta":  # asking torch whether there is autocast would break a graph
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
