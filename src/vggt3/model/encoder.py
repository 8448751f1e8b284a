"""The image encoder: a DINOv2-style ViT with patches of 14 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vggt3.model import maps
from vggt3.model.blocks import Block
from vggt3.model.config import EncoderConfig
from vggt3.types import PATCH

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet's RGB statistics, which the encoder expects its input to be normalised by."""


class Encoder(nn.Module):
    """RGB in [0, 1] → the final LayerNorm's patch tokens."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, side = config.width, config.position_grid
        self.side = side
        self.patch = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.registers = nn.Parameter(torch.zeros(1, config.registers, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, eps=1e-6) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for parameter in (self.class_token, self.position, self.registers):
            nn.init.normal_(parameter, std=0.02)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The learned grid resized to ``grid`` (bicubic with antialias, fp32): [1, 1+N, E]."""
        first, rest = self.position[:, :1], self.position[:, 1:]
        if grid == (self.side, self.side):
            return self.position
        square = rest.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        wide = square.to(torch.promote_types(square.dtype, torch.float32))
        resized = interpolate(wide, size=grid, mode="bicubic", antialias=True)
        resized = resized.flatten(2).transpose(1, 2).to(rest.dtype)
        return torch.cat([first, resized], dim=1)

    def forward(
        self,
        images: Tensor,  # [B, 3, H, W] float in [0, 1] or uint8
        ahead: bool = False,
    ) -> Tensor:
        """[B, (H/14)·(W/14), E]; ``ahead``: each block makes the next one's first LayerNorm."""
        grid = (images.shape[-2] // PATCH, images.shape[-1] // PATCH)
        x = maps.patch_rows(images, self.patch, MEAN, DEVIATION)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions(grid).to(x.dtype)
        registers = self.registers.expand(x.shape[0], -1, -1).to(x.dtype)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        thens = [*(block.norm1 for block in self.blocks), self.norm][1:]
        normed: Tensor | None = None
        for block, then in zip(self.blocks, thens, strict=True):
            x, normed = block(x, None, normed, then if ahead else None)
        patches = 1 + self.registers.shape[1]
        out: Tensor = self.norm(x[:, patches:]) if normed is None else normed[:, patches:]
        return out
