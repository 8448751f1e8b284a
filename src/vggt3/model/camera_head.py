"""Camera tokens → poses, refined a few times by a small trunk over all views of the scene."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from vggt3.model.blocks import Block, Mlp
from vggt3.model.config import ModelConfig

POSE = 9
"""Translation 3, quaternion xyzw 4 (any length), field of view height and width 2."""


class CameraHead(nn.Module):
    """The second place where views meet: its trunk attends over every view's camera token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = 2 * config.width
        self.iterations = config.camera_iterations
        self.token_norm = nn.LayerNorm(width)
        self.empty_pose = nn.Parameter(torch.zeros(1, 1, POSE))
        self.embed_pose = nn.Linear(POSE, width)
        self.modulation = nn.Linear(width, 3 * width)
        self.trunk = nn.ModuleList(
            Block(width, config.camera_heads, scale=config.layer_scale)
            for _ in range(config.camera_depth)
        )
        self.trunk_norm = nn.LayerNorm(width)
        self.branch = Mlp(width, width // 2, POSE)
        start = torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1]) / self.iterations
        with torch.no_grad():  # the steps add up to no turn and a field of view of 1 rad
            self.branch.fc2.bias.copy_(start)

    def forward(
        self,
        tokens: Tensor,  # [B, V, 2C] raw camera tokens of all views, in any order
        mask: Tensor | None = None,  # [V, V] bool: row i sees column j; by default all of them
        asked: slice | None = None,  # of the V; by default all
    ) -> list[Tensor]:
        """The pose encoding after each iteration: [B, V, 9], fields of view ≥ 0.

        After the last, of the views ``asked`` alone: the others' is not worked out to its end.

        No gradient flows from one iteration to an earlier one. Tokens that are bf16 are worked
        on in bf16 products, with LayerNorms and poses in fp32.
        """
        kind, wide = tokens.device.type, torch.promote_types(tokens.dtype, torch.float32)
        narrow = kind != "meta" and tokens.dtype != wide and not torch.is_autocast_enabled(kind)
        with torch.autocast(kind, tokens.dtype) if narrow else nullcontext():
            return self._stages(self.token_norm(tokens.to(wide)), mask, asked)

    def _stages(self, tokens: Tensor, mask: Tensor | None, asked: slice | None) -> list[Tensor]:
        plain = layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        pose: Tensor | None = None
        reported = []
        for n in range(self.iterations):
            rows = asked if n == self.iterations - 1 else None
            before = None if pose is None else pose.detach()
            given = self.empty_pose if before is None else before
            step = self._refine((tokens, plain), given.to(tokens.dtype), mask, rows)
            if before is not None and rows is not None:
                before = before[:, rows]
            pose = step if before is None else before + step
            reported.append(torch.cat([pose[..., :7], pose[..., 7:].relu()], dim=-1))
        return reported

    def _refine(
        self, given: tuple[Tensor, Tensor], pose: Tensor, mask: Tensor | None, rows: slice | None
    ) -> Tensor:
        tokens, plain = given
        shift, scale, gate = self.modulation(silu(self.embed_pose(pose))).chunk(3, dim=-1)
        x = gate * (plain * (1 + scale) + shift) + tokens
        last = len(self.trunk) - 1
        for n, block in enumerate(self.trunk):
            x, _ = block(x, mask=mask, asked=rows if n == last else None)
        step: Tensor = self.branch(self.trunk_norm(x))
        return step.to(torch.promote_types(step.dtype, torch.float32))
