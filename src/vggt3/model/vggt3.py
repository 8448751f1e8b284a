"""The whole model: views in, poses, depth and point maps out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vggt3.attention.registry import LayerSpec, plan_layers
from vggt3.model.aggregator import Aggregator
from vggt3.model.camera_head import CameraHead
from vggt3.model.config import ModelConfig
from vggt3.model.dense_head import DenseHead
from vggt3.model.encoder import Encoder
from vggt3.model.scene import Conduct, Memory, Scene, Trunk
from vggt3.types import ViewGroup, Views

Projected = tuple[Tensor, Tensor]
"""A feature after the depth and after the point head's LayerNorm and 1×1 projection."""


@dataclass(frozen=True)
class DenseMaps:
    """The dense heads' output for the views of one group."""

    depth: Tensor
    """[B, V_g, H, W] along z, scene units, > 0"""
    depth_confidence: Tensor
    """[B, V_g, H, W] ≥ 1"""
    points: Tensor
    """[B, V_g, H, W, 3] in the world frame (the first view's camera)"""
    points_confidence: Tensor
    """[B, V_g, H, W] ≥ 1"""


@dataclass(frozen=True)
class Prediction:
    """What :class:`VGGT3` says of a scene."""

    pose_stages: tuple[Tensor, ...]
    """After each refinement: [B, V, 9] pose encodings in scene order, all ranks' views."""
    dense: tuple[DenseMaps, ...]
    """For each group of the views given."""
    memory: Memory
    """What localisation needs."""
    trunk: Trunk

    @property
    def pose(self) -> Tensor:
        """[B, V, 9] translation, quaternion xyzw, field of view (height, width), radians."""
        return self.pose_stages[-1]


class VGGT3(nn.Module):
    """VGGT with interchangeable global attention (VGG-T³, arXiv 2602.23361)."""

    def __init__(self, config: ModelConfig, attention: tuple[LayerSpec, ...]) -> None:
        super().__init__()
        if len(attention) != config.layers:
            raise ValueError(f"attention must name {config.layers} layers, got {len(attention)}")
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.aggregator = Aggregator(config, attention)
        self.camera_head = CameraHead(config)
        self.depth_head = DenseHead(config, 1)
        self.point_head = DenseHead(config, 3)

    @classmethod
    def build(cls, config: ModelConfig, attention: str, **options: object) -> VGGT3:
        """A freshly initialised model with one backend (or ``schedule=``) for its layers."""
        return cls(config, plan_layers(attention, options, config.layers))

    @property
    def specs(self) -> tuple[LayerSpec, ...]:
        """Each global layer's backend and options."""
        return self.aggregator.specs

    def read(
        self,
        views: Views,
        conduct: Conduct | None = None,
        memory: Memory | None = None,
        own: bool = False,
        share: float | None = None,
    ) -> Trunk:
        """Everything up to the heads. With ``memory`` the views only read it: as queries, or
        where ``own`` says that they are of the views that wrote it, as they read it then. With
        ``share``, theirs of all tokens, they write to it once before they read."""
        conduct = conduct or Conduct()
        scene = Scene(self.encoder, self.aggregator, views, conduct, memory, own, share)
        return scene.read(self.config.feature_layers)

    def poses(self, trunk: Trunk, memory: Memory | None = None, fast: bool = False) -> list[Tensor]:
        """Pose encodings [B, V, 9] after each refinement.

        With ``memory``, each query by itself joins the map's camera tokens: [map, query] is one
        sequence, queries never see each other, and the query's row is the answer. ``fast`` is
        another function: one sequence for all queries, in which a query sees the map and itself
        and the map sees itself alone.
        """
        if memory is None:
            stages: list[Tensor] = self.camera_head(trunk.camera_tokens)
            return stages
        queries = trunk.camera_tokens.transpose(0, 1)  # [Q, 1, 2C]
        known = memory.camera_tokens.to(queries)
        if fast:
            row = torch.cat([known, queries.transpose(0, 1)], dim=1)  # [1, V + Q, 2C]
            views, place = known.shape[1], torch.arange(row.shape[1], device=row.device)
            mask = (place < views) | (place == place[:, None])
            asked = self.camera_head(row, mask, asked=slice(views, None))
            return [stage[:, -queries.shape[0] :] for stage in asked]
        known = known.expand(queries.shape[0], -1, -1)
        stages = self.camera_head(torch.cat([known, queries], dim=1), asked=slice(-1, None))
        return [stage[:, -1:].transpose(0, 1) for stage in stages]

    def projected(self, slot: int, feature: Tensor, grid: tuple[int, int]) -> Projected:
        """What the depth and the point head make of a feature [B, V_c, P, 2C] at first:
        [B·V_c, S, rows, columns] each; a third smaller together, and :meth:`dense` takes it."""
        patches = feature[:, :, self.config.special :].flatten(0, 1)
        heads = self.depth_head, self.point_head
        depth, points = (head.project(slot, patches, grid) for head in heads)
        return depth, points

    def dense(self, features: Sequence[Tensor | Projected], group: ViewGroup) -> DenseMaps:
        """The dense heads on the views of one chunk: four [B, V_c, P, 2C], or projected."""
        special, shape = self.config.special, group.images.shape[:2]
        for_depth, for_points = [], []
        for x in features:
            patches = x[:, :, special:].flatten(0, 1) if isinstance(x, Tensor) else None
            depth, points = x if patches is None else (patches, patches)
            for_depth.append(depth)
            for_points.append(points)
        depth, depth_confidence = self.depth_head(for_depth, group.grid, group.size)
        points, points_confidence = self.point_head(for_points, group.grid, group.size)
        return DenseMaps(
            depth.unflatten(0, shape),
            depth_confidence.unflatten(0, shape),
            points.unflatten(0, shape),
            points_confidence.unflatten(0, shape),
        )

    def forward(
        self, views: Views, conduct: Conduct | None = None, memory: Memory | None = None
    ) -> Prediction:
        """All of it, for all views at once.

        Args:
            views: the scene, or with ``memory`` the queries (B = 1).
            conduct: ranks, checkpointing, progress; never changes the result.
            memory: a scene's settled memory, read only.
        """
        trunk = self.read(views, conduct, memory)
        stages = self.poses(trunk, memory)
        dense = tuple(
            self.dense(features, group)
            for features, group in zip(trunk.features, views.groups, strict=True)
        )
        kept = memory or trunk.memory
        return Prediction(tuple(stages), dense, kept, trunk)
