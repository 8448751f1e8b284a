"""Softmax attention over every token of every view: VGGT's own, exact and quadratic.

The memory is the list of all keys and values. ``max_views`` bounds that list to the keys of a
few key views, chosen by a survey: cost becomes linear, and the views outside it are seen only
through the frame blocks and the other layers of a schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggt3 import checks
from vggt3.attention.base import (
    Backend,
    Context,
    Projection,
    agreement,
    merge_heads,
    split_heads,
)
from vggt3.attention.kernels import rows
from vggt3.attention.kernels import softmax as kernels
from vggt3.attention.memory import Delta, State


def farthest_views(
    descriptors: Tensor,  # [B, V, E]
    count: int,
) -> Tensor:
    """Greedy farthest-point choice of ``count`` views, the first view first: bool [B, V].

    Independent of the order of the other views (up to exact ties).
    """
    batch, views, _ = descriptors.shape
    chosen = torch.zeros(batch, views, dtype=torch.bool, device=descriptors.device)
    chosen[:, 0] = True
    nearest = (descriptors - descriptors[:, :1]).norm(dim=-1)  # [B, V]
    for _ in range(min(count, views) - 1):
        nearest = nearest.masked_fill(chosen, -1.0)
        pick = nearest.argmax(dim=1, keepdim=True)  # [B, 1]
        chosen.scatter_(1, pick, True)
        newest = descriptors.take_along_dim(pick[..., None], dim=1)  # [B, 1, E]
        nearest = torch.minimum(nearest, (descriptors - newest).norm(dim=-1))
    return chosen


class Softmax(Backend):
    """softmax(q kᵀ/√D) v over the keys of all views; QK-LayerNorm, then RoPE (VGGT)."""

    name = "softmax"
    summary = "exact attention over all views"

    def __init__(
        self,
        width: int,
        heads: int,
        layer: int = 0,
        *,
        kernel: str = "auto",
        max_views: int | None = None,
    ) -> None:
        """A layer with random weights.

        Args:
            kernel: cudnn, flash, efficient, math, flash_attn, xformers, or auto.
            max_views: keep the keys of at most this many views; by default of all.
        """
        super().__init__(width, heads, layer)
        checks.choose("--attention.kernel", kernel, [*kernels.KERNELS, "auto"])
        checks.require(
            max_views is None or max_views >= 1,
            "--attention.max_views",
            "be at least 1",
            max_views,
        )
        self.kernel, self.max_views = kernel, max_views
        self.linear = max_views is not None
        self.q_norm = nn.LayerNorm(width // heads)
        self.k_norm = nn.LayerNorm(width // heads)

    def survey(self, descriptors: Tensor) -> State | None:
        if self.max_views is None:
            return None
        return State({"key_views": farthest_views(descriptors, self.max_views)})

    def begin(
        self, views: int, batch: int, device: torch.device, plan: State | None = None
    ) -> State:
        return State(bounded=self.max_views is not None)

    def project(self, tokens: Tensor, context: Context) -> Projection:
        qkv = self.qkv(tokens)
        q, k = rows.norm_turn(qkv, self.heads, (self.q_norm, self.k_norm), context.rope)
        q, k = q.movedim(-2, 1), k.movedim(-2, 1)  # [B, H, V, P, D]
        v = split_heads(qkv[..., 2 * self.width :], self.heads)
        return Projection(
            {"q": q.flatten(2, 3), "k": k, "v": v}, tokens.shape[1], context
        )  # q [B, H, V·P, D]; k, v [B, H, V, P, D]: a list may keep some views only

    def write(self, projection: Projection, state: State) -> Delta:
        k, v, context = projection["k"], projection["v"], projection.context
        weight = context.weight
        if context.plan is not None:
            key_views = context.plan["key_views"][:, list(context.ids)]  # [B, V_c]
            keep = key_views.any(dim=0)  # a view is kept while one scene of the batch wants it
            k, v = k[:, :, keep], v[:, :, keep]
            weight = None if weight is None else weight[:, keep]
            if k.shape[0] > 1:
                wanted = key_views[:, keep, None].to(k.dtype).expand(-1, -1, k.shape[3])
                weight = wanted if weight is None else weight * wanted
        lists = {
            "k": k.flatten(2, 3).transpose(1, 2),  # [B, M, H, D]
            "v": v.flatten(2, 3).transpose(1, 2),
        }
        if weight is not None:
            lists["log_weight"] = weight.flatten(1).log()  # [B, M]
        return Delta(lists=lists)

    def settle(self, state: State, delta: Delta) -> tuple[State, bool]:
        return state.updated(delta.lists), False

    def _find(self, x: Tensor, state: State) -> Tensor:
        k, v = (state[name].transpose(1, 2) for name in ("k", "v"))  # [B, H, M, D]
        return kernels.attend(x, k, v, state.tensors.get("log_weight"), kernel=self.kernel)

    def recall(self, projection: Projection, state: State) -> Tensor | None:
        k, v = (projection[name].flatten(2, 3) for name in ("k", "v"))
        return agreement(self._find(k, state), v, projection)

    def read(self, projection: Projection, state: State) -> Tensor:
        out = self._find(projection["q"], state)
        mixed: Tensor = self.proj(merge_heads(out, projection))
        return mixed
