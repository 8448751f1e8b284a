"""Two-dimensional rotary position embedding (Su 2021, in the axial form of VGGT).

The first half of the head width turns with a token's row, the second with its column. Within a
half of width d/2, pairs are (i, i + d/4) and angle_i = position · 100^(-2i/(d/2)). Camera and
register tokens stand at (0, 0); the patch of row r and column c at (r+1, c+1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 100.0


@dataclass(frozen=True)
class Rope:
    """Cosines and sines for the tokens of one view."""

    cos: Tensor
    """[P, D]"""
    sin: Tensor
    """[P, D]"""

    @classmethod
    def of_grid(
        cls,
        grid: tuple[int, int],
        special: int,
        head_width: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Rope:
        """The table for ``special`` tokens at (0, 0) followed by a row-major patch grid."""
        rows, columns = grid
        wide = torch.promote_types(dtype, torch.float32)
        row = torch.arange(1, rows + 1, device=device, dtype=wide).repeat_interleave(columns)
        column = torch.arange(1, columns + 1, device=device, dtype=wide).repeat(rows)
        position = torch.stack([row, column], dim=-1)  # [P - special, 2]
        position = torch.cat([position.new_zeros(special, 2), position])  # [P, 2]
        half = head_width // 2
        step = torch.arange(0, half, 2, device=device, dtype=wide)  # [d/4]
        angle = position[..., None] * BASE ** (-step / half)  # [P, 2, d/4]
        angle = torch.cat([angle, angle], dim=-1).flatten(1)  # [P, D]
        return cls(angle.cos(), angle.sin())

    def turn(
        self,
        x: Tensor,  # [..., P, D]
    ) -> Tensor:
        """Rotate each token's pairs by its angles; the result keeps x's dtype."""
        first, second = x.unflatten(-1, (2, 2, -1)).unbind(-2)  # each [..., P, 2, d/4]
        turned = torch.stack([-second, first], dim=-2).flatten(-3)  # [..., P, D]
        return (x * self.cos + turned * self.sin).to(x.dtype)
