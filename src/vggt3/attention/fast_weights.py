"""The equations of the fast-weight MLP (VGG-T³, arXiv 2602.23361), in plain torch.

A head's memory is f(k) = (SiLU(k W0) ⊙ (k W2)) W1 with W0, W2 [d, h] and W1 [h, d]. Writing a
scene is one or more sweeps of W ← W + NS5(G) for the objective Σ_t ⟨f(k_t), v_t⟩. Because the
objective is a dot product, G needs no forward output, and it is a plain sum over tokens: it
adds over chunks, groups and ranks. Works in any floating dtype; inputs are untouched.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NORM_EPSILON = 1e-7
COLUMN_EPSILON = 1e-5


class Weights(NamedTuple):
    """The three matrices of every head, or their gradients."""

    w0: Tensor
    """[B, H, d, h] gate"""
    w1: Tensor
    """[B, H, h, d] out"""
    w2: Tensor
    """[B, H, d, h] up"""


def apply(
    x: Tensor,  # [B, H, N, d]
    weights: Weights,
) -> Tensor:
    """f(x) = (SiLU(x W0) ⊙ (x W2)) W1 as [B, H, N, d]; 3·d·h multiply-adds a token and head."""
    return (silu(x @ weights.w0) * (x @ weights.w2)) @ weights.w1


def gradient(
    k: Tensor,  # [B, H, N, d]
    v: Tensor,  # [B, H, N, d]
    rates: Tensor,  # [B, H, N, 3] learning rates of W0, W1, W2
    weights: Weights,
) -> Weights:
    """G = ∂/∂W Σ_t η_t ⟨f(k_t), v_t⟩ summed over the tokens (arXiv 2602.23361)."""
    gate = k @ weights.w0  # [B, H, N, h]
    up = k @ weights.w2
    back = v @ weights.w1.transpose(-1, -2)
    sigma = torch.sigmoid(gate)
    active = gate * sigma
    slope = sigma * (1 + gate * (1 - sigma))
    rate0, rate1, rate2 = rates.unsqueeze(-2).unbind(-1)  # each [B, H, N, 1]
    return Weights(
        (k * rate0).transpose(-1, -2) @ (back * up * slope),
        (active * up * rate1).transpose(-1, -2) @ v,
        (k * rate2).transpose(-1, -2) @ (back * active),
    )


def newton_schulz(
    gradient: Tensor,  # [..., rows, columns]
    steps: int,
) -> Tensor:
    """Towards the nearest orthogonal matrix (Muon's quintic iteration), per leading index."""
    a, b, c = NEWTON_SCHULZ
    tall = gradient.shape[-2] > gradient.shape[-1]
    x = gradient.transpose(-1, -2) if tall else gradient
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + NORM_EPSILON)
    shape, x = x.shape, x.reshape(-1, *x.shape[-2:])
    for _ in range(steps):
        square = x @ x.transpose(-1, -2)
        mixed = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, mixed, x, beta=a)
    x = x.view(shape)
    return x.transpose(-1, -2) if tall else x


def column_norms(weight: Tensor) -> Tensor:
    """L2 norm of each column: [..., rows, columns] → [..., 1, columns]."""
    return weight.norm(dim=-2, keepdim=True)


def update(
    weights: Weights,
    gradients: Weights,
    norms: Weights,  # the columns' initial norms, [B or 1, H, 1, columns]
    steps: int,
    share: float = 1.0,
) -> Weights:
    """W ← W + share · NS(G), each column rescaled to its initial norm.

    G1 takes part as its transpose, so that one batch of products settles all three.
    """
    three = torch.stack([gradients.w0, gradients.w1.transpose(-1, -2), gradients.w2])
    step0, step1, step2 = newton_schulz(three, steps)
    turned = Weights(step0, step1.transpose(-1, -2), step2)
    moved = [torch.add(w, step, alpha=share) for w, step in zip(weights, turned, strict=True)]
    return Weights(
        *(
            w * (norm / (column_norms(w) + COLUMN_EPSILON))
            for w, norm in zip(moved, norms, strict=True)
        )
    )
