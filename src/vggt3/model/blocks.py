"""The transformer blocks: the frame block attends within a view, the global block is a backend."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggt3.attention.base import Backend, Projection
from vggt3.attention.kernels import rows
from vggt3.attention.kernels.softmax import attend, attend_masked
from vggt3.attention.memory import State
from vggt3.attention.rope import Rope

Carried = tuple[Tensor, Tensor | None]
"""Tokens, and their LayerNorm that the next block begins with, where that was made already."""


class Mlp(nn.Module):
    """Linear → exact GELU → Linear, ratio 4 unless told."""

    def __init__(self, width: int, hidden: int | None = None, out: int | None = None) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(rows.linear_gelu(x, self.fc1.weight, self.fc1.bias))
        return out


class LayerScale(nn.Module):
    """x · γ, a learned factor per channel."""

    def __init__(self, width: int, start: float = 0.01) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class SelfAttention(nn.Module):
    """Softmax among the tokens of one sequence; QK-LayerNorm and RoPE where asked for."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.normed = qk_norm
        norm = (lambda: nn.LayerNorm(width // heads)) if qk_norm else nn.Identity
        self.q_norm, self.k_norm = norm(), norm()

    def forward(
        self,
        x: Tensor,  # [B, N, C]
        rope: Rope | None = None,
        mask: Tensor | None = None,  # [N, N] bool: row i sees column j
        asked: slice | None = None,  # M of the N rows, each of which sees all; by default all
    ) -> Tensor:  # [B, M, C]
        qkv = self.qkv(x)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(2)  # each [B, N, H, D]
        if self.normed:
            assert rope is not None and isinstance(self.q_norm, nn.LayerNorm)
            assert isinstance(self.k_norm, nn.LayerNorm)
            q, k = rows.norm_turn(qkv, self.heads, (self.q_norm, self.k_norm), rope)
        kernel = "auto"
        if asked is not None:
            q, mask = q[:, asked], None if mask is None else mask[asked]
            kernel = "math"  # cuDNN's wants more than a row of queries, which is no work for any
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        if mask is None:
            mixed = attend(q, k, v, kernel=kernel)  # [B, H, M, D]
        else:
            mixed = attend_masked(q, k, v, mask)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Residual(nn.Module):
    """What all blocks share: x + γ1·mix(LN x), then x + γ2·MLP(LN x)."""

    def __init__(
        self, width: int, attn: nn.Module, *, eps: float = 1e-5, scale: float = 0.01
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attn
        self.ls1 = LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width, scale)

    def finish(
        self,
        x: Tensor,  # [..., C]
        mixed: Tensor,  # [..., C]
        then: nn.LayerNorm | None = None,
    ) -> Carried:
        """Add what attention gave, then the MLP; with the LayerNorm ``then`` of the next block,
        its output too, while the tokens are at hand."""
        x, normed = rows.add_norm(x, mixed, self.ls1.gamma, self.norm2)
        grown = self.mlp(normed)
        if then is None:
            return rows.add_scaled(x, grown, self.ls2.gamma), None
        return rows.add_norm(x, grown, self.ls2.gamma, then)


class Block(Residual):
    """A plain block: attention among the tokens of each sequence of a batch."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        eps: float = 1e-5,
        qk_norm: bool = False,
        scale: float = 0.01,
    ) -> None:
        super().__init__(width, SelfAttention(width, heads, qk_norm=qk_norm), eps=eps, scale=scale)

    def forward(
        self,
        x: Tensor,  # [B, N, C]
        rope: Rope | None = None,
        normed: Tensor | None = None,
        then: nn.LayerNorm | None = None,
        mask: Tensor | None = None,  # [N, N] bool: row i sees column j
        asked: slice | None = None,  # of the N rows
    ) -> Carried:
        """The tokens after the block, and their LayerNorm ``then`` where it is given; ``normed``
        is this block's own first one, if the block before has made it. Of the rows ``asked``
        alone, where they are given: the others are only seen."""
        normed = self.norm1(x) if normed is None else normed
        mixed = self.attn(normed, rope, mask, asked)
        return self.finish(x if asked is None else x[:, asked].contiguous(), mixed, then)


class GlobalBlock(Residual):
    """A block whose attention is a backend; the steps are called one by one by the scene."""

    attn: Backend

    def read(
        self,
        x: Tensor,  # [B, V_c, P, C]
        projection: Projection,
        state: State,
        then: nn.LayerNorm | None = None,
    ) -> Carried:
        """The block's output for views whose projection is given: [B, V_c, P, C], and its
        LayerNorm ``then``."""
        return self.finish(x, self.attn.read(projection, state), then)
