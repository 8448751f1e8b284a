"""The aggregator: special tokens, then pairs of frame block and global block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggt3.attention.registry import LayerSpec
from vggt3.attention.rope import Rope
from vggt3.model.blocks import Block, Carried, GlobalBlock
from vggt3.model.config import ModelConfig


class Aggregator(nn.Module):
    """Where views meet. The order of the calls is the scene's (:mod:`vggt3.model.scene`)."""

    def __init__(self, config: ModelConfig, attention: tuple[LayerSpec, ...]) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.specs = attention
        same = config.encoder.width == width
        self.embed = nn.Identity() if same else nn.Linear(config.encoder.width, width)
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.registers, width))
        for token in (self.camera_token, self.register_token):
            nn.init.normal_(token, std=0.02)
        self.frame_blocks = nn.ModuleList(
            Block(width, heads, qk_norm=True, scale=config.layer_scale)
            for _ in range(config.layers)
        )
        self.global_blocks = nn.ModuleList(
            GlobalBlock(width, spec.build(width, heads, layer), scale=config.layer_scale)
            for layer, spec in enumerate(attention)
        )

    def start(
        self,
        patches: Tensor,  # [B, V, N, E]
        first: list[bool],
    ) -> Tensor:
        """Prepend each view's camera and register tokens: [B, V, P, C].

        The scene's first view (``first``) gets its own version of them.
        """
        patches = self.embed(patches)
        special = torch.cat([self.camera_token, self.register_token], dim=2)  # [1, 2, S, C]
        versions = [special[:, :1] if f else special[:, 1:] for f in first]
        special = torch.cat([special[:, :0], *versions], dim=1).to(patches.dtype)  # [1, V, S, C]
        return torch.cat([special.expand(patches.shape[0], -1, -1, -1), patches], dim=2)

    def frame(
        self,
        layer: int,
        tokens: Tensor,  # [B, V, P, C]
        rope: Rope,
        normed: Tensor | None = None,
        then: nn.LayerNorm | None = None,
    ) -> Carried:
        """One frame block: attention within each view. See :meth:`Block.forward`."""
        views = tokens.shape[:2]
        normed = None if normed is None else normed.flatten(0, 1)
        found: Carried = self.frame_blocks[layer](tokens.flatten(0, 1), rope, normed, then)
        out, after = found
        return out.unflatten(0, views), None if after is None else after.unflatten(0, views)

    def first_norm(self, layer: int) -> nn.LayerNorm:
        """What the frame block of a layer begins with."""
        found = self.frame_blocks[layer]
        assert isinstance(found, Block)
        return found.norm1

    def block(self, layer: int) -> GlobalBlock:
        """The global block of a layer."""
        found = self.global_blocks[layer]
        assert isinstance(found, GlobalBlock)
        return found
