"""Linear attention (Katharopoulos 2020): two sums are the whole memory.

o = φ(q) Σ φ(k)ᵀ v / (φ(q)·Σ φ(k) + 1e-6) with φ = elu + 1, after QK-LayerNorm and RoPE.
State: H·D·(D+1) numbers a layer; cost 2·D multiply-adds a token and channel; the sums are fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from vggt3.attention.base import (
    Backend,
    Context,
    Projection,
    agreement,
    as_given,
    merge_heads,
    split_heads,
)
from vggt3.attention.memory import Delta, State

EPSILON = 1e-6


def linear_attention_reference(
    q: Tensor,  # [B, H, N, D]
    k: Tensor,  # [B, H, M, D]
    v: Tensor,  # [B, H, M, D]
    weight: Tensor,  # [B, M]
) -> Tensor:
    """The equation over explicit pairs, in the dtype given."""
    similarity = (elu(q) + 1) @ (elu(k) + 1).transpose(-1, -2)  # [B, H, N, M]
    similarity = similarity * weight[:, None, None, :]
    return similarity @ v / (similarity.sum(-1, keepdim=True) + EPSILON)


class Linear(Backend):
    """φ(q) Σφ(k)ᵀv / φ(q)·Σφ(k): linear in the views, a fixed-size state."""

    name = "linear"
    summary = "kernel feature map, two running sums"

    def __init__(self, width: int, heads: int, layer: int = 0) -> None:
        super().__init__(width, heads, layer)
        self.q_norm = nn.LayerNorm(width // heads)
        self.k_norm = nn.LayerNorm(width // heads)

    def begin(
        self, views: int, batch: int, device: torch.device, plan: State | None = None
    ) -> State:
        return State()

    def project(self, tokens: Tensor, context: Context) -> Projection:
        q, k, v = (split_heads(x, self.heads) for x in self.qkv(tokens).chunk(3, dim=-1))
        wide = torch.promote_types(v.dtype, torch.float32)
        q = elu(context.rope.turn(self.q_norm(q).to(wide))) + 1
        k = elu(context.rope.turn(self.k_norm(k).to(wide))) + 1
        tensors = {"q": q, "k": k, "v": v.to(wide)}
        return Projection(
            {name: t.flatten(2, 3) for name, t in tensors.items()}, tokens.shape[1], context
        )  # each [B, H, N, D]

    def write(self, projection: Projection, state: State) -> Delta:
        k, v, weight = projection["k"], projection["v"], projection.context.weight
        if weight is not None:
            k = k * weight.flatten(1)[:, None, :, None].to(k.dtype)
        with as_given(k.device):
            return Delta({"kv": k.transpose(-1, -2) @ v, "k": k.sum(dim=2)})

    def settle(self, state: State, delta: Delta) -> tuple[State, bool]:
        return state.updated(delta.sums), False

    def _find(self, x: Tensor, state: State) -> Tensor:
        with as_given(x.device):
            return x @ state["kv"] / (x @ state["k"][..., None] + EPSILON)

    def recall(self, projection: Projection, state: State) -> Tensor | None:
        return agreement(self._find(projection["k"], state), projection["v"], projection)

    def read(self, projection: Projection, state: State) -> Tensor:
        out = self._find(projection["q"], state)
        mixed: Tensor = self.proj(merge_heads(out, projection).to(self.proj.weight.dtype))
        return mixed
