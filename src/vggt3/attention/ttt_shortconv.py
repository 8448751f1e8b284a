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
from vggt3.attention.kernels import rows
from vggt3.attention.ttt_mlp import TTTMLP

CONVOLUTIONS = {"q": "conv_q", "k": "conv_k", "v": "conv"}
CONVOLVED = ("v", "q", "k", "qk", "qv", "kv", "qkv")


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
        initial: str = "fixed",
        fast_kernel: str = "auto",
        rates: str = "learned",
        gate: bool = False,
        kernel_size: int = 3,
        convolved: str = "v",
    ) -> None:
        """A layer with random weights.

        Args:
            sweeps: times every view is written; auto is 1 in training, else min(2 + V//1000, 4).
            hidden: hidden width of the MLP in head widths.
            newton_schulz: steps of the orthogonalising iteration on each sweep's gradient.
            seed: of the random start of the fast weights; layers differ.
            initial: fixed (the paper's: the start is never trained), or learned from there on.
            fast_kernel: torch, triton, or auto.
            rates: learned (predicted from each token), or fixed: 0.01 for all.
            gate: multiply what is read by SiLU(Linear(token)), as ZipMap does.
            kernel_size: side of the convolution in patches, odd.
            convolved: what is convolved: v, q, k, qk, qv, kv or qkv, each by kernels of its own.
        """
        super().__init__(
            width,
            heads,
            layer,
            sweeps=sweeps,
            hidden=hidden,
            newton_schulz=newton_schulz,
            seed=seed,
            initial=initial,
            fast_kernel=fast_kernel,
            rates=rates,
            gate=gate,
        )
        checks.require(
            kernel_size >= 1 and kernel_size % 2 == 1,
            "--attention.kernel_size",
            "be odd and positive",
            kernel_size,
        )
        self.convolved = checks.choose("--attention.convolved", convolved, CONVOLVED)
        self.conv_q: nn.Conv2d
        self.conv_k: nn.Conv2d
        self.conv: nn.Conv2d
        for letter in convolved:
            self.add_module(CONVOLUTIONS[letter], _identity(width, kernel_size))

    def mix(self, qkv: Tensor, context: Context) -> Tensor:
        if not {"q", "k"} & set(self.convolved):
            return qkv
        q, k, v = qkv.chunk(3, dim=-1)
        if "q" in self.convolved:
            q = rows.convolve(q, self.conv_q.weight, context.special, context.grid)
        if "k" in self.convolved:
            k = rows.convolve(k, self.conv_k.weight, context.special, context.grid)
        return torch.cat([q, k, v], dim=-1)

    def values(self, qkv: Tensor, context: Context) -> Tensor:
        if "v" not in self.convolved:
            return super().values(qkv, context)
        v = qkv[..., 2 * self.width :]
        return rows.convolve_silu(v, self.conv.weight, context.special, context.grid)


def _identity(width: int, side: int) -> nn.Conv2d:
    """A depthwise convolution that changes nothing yet."""
    conv = nn.Conv2d(width, width, side, padding=side // 2, groups=width, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, side // 2, side // 2] = 1.0
    return conv
