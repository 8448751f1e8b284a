"""The fast-weight MLP with a short convolution that mixes neighbouring values (VGG-T³).

A depthwise k×k convolution, no bias, zero padding, over each view's patch grid replaces the
chosen projections before their SiLU; camera and register tokens pass unchanged. The paper has
3×3 on v.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggt3 import checks
from vggt3.attention.base import Context
from vggt3.attention.ttt_mlp import TTTMLP


class TTTShortConv(TTTMLP):
    """``ttt_mlp`` whose values see their neighbours: VGG-T³'s own backend."""

    name = "ttt_shortconv"
    summary = "ttt_mlp with a depthwise 3×3 convolution on v"

    def __init__(
        self,
        width: int,
        heads: int,
        layer: int = 0,
        *,
        sweeps: int | str = "auto",
        hidden: int = 4,
        newton_schulz: int = 5,
        seed: int = 0,
        fast_kernel: str = "auto",
        kernel_size: int = 3,
    ) -> None:
        """A layer with random weights.

        Args:
            sweeps: times every view is written; auto is 1 in training, else min(2 + V//1000, 4).
            hidden: hidden width of the MLP in head widths.
            newton_schulz: steps of the orthogonalising iteration on each sweep's gradient.
            seed: of the fixed random start of the fast weights; layers differ.
            fast_kernel: torch, triton, or auto.
            kernel_size: side of the convolution in patches, odd.
        """
        super().__init__(
            width,
            heads,
            layer,
            sweeps=sweeps,
            hidden=hidden,
            newton_schulz=newton_schulz,
            seed=seed,
            fast_kernel=fast_kernel,
        )
        checks.require(
            kernel_size >= 1 and kernel_size % 2 == 1,
            "--attention.kernel_size",
            "be odd and positive",
            kernel_size,
        )
        self.conv = nn.Conv2d(
            width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False
        )
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, :, kernel_size // 2, kernel_size // 2] = 1.0

    def mix(self, v: Tensor, context: Context) -> Tensor:
        special = context.special
        patches = v[:, :, special:].unflatten(2, context.grid)  # [B, V, rows, columns, C]
        batch, views = patches.shape[:2]
        if views == 0:
            return v
        mixed = self.conv(patches.flatten(0, 1).permute(0, 3, 1, 2))  # [B·V, C, rows, columns]
        mixed = mixed.flatten(2).transpose(1, 2).unflatten(0, (batch, views))
        return torch.cat([v[:, :, :special], mixed], dim=2)
