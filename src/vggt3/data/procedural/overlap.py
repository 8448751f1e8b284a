"""How much photos of a scene share: the numbers by which an exam's difficulty is stated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3.geometry.camera import relative_poses
from vggt3.geometry.projection import project, unproject
from vggt3.geometry.rotation import rotation_angle

PIXEL_OFFSET = 0.5


@dataclass(frozen=True)
class PairStatistics:
    """What a scene's pairs of views look like; [B] each."""

    overlap: Tensor
    """Median over ordered pairs i ≠ j of the share of view i that view j sees too."""
    rotation: Tensor
    """Median over pairs i < j of the angle between the cameras, radians."""
    baseline: Tensor
    """Median over pairs i < j of the distance of the cameras over the scene's median depth."""


def pairwise_overlap(
    depth: Tensor,  # [B, V, H, W] along z; 0 is unknown
    intrinsics: Tensor,  # [B, V, 3, 3] pixels
    camera_from_world: Tensor,  # [B, V, 3, 4]
    stride: int = 8,
    tolerance: float = 0.02,
) -> Tensor:
    """[B, V, V]: entry [i, j] is the share of view i's known pixels that view j sees too.

    Every ``stride``-th pixel is tried. A point is seen if it falls inside the image and within
    ``tolerance`` (relative) of the depths that are there.
    """
    batch, views, height, width = depth.shape
    points = unproject(depth, intrinsics, camera_from_world, PIXEL_OFFSET)
    start = stride // 2
    points = points[:, :, start::stride, start::stride].flatten(2, 3)  # [B, V, N, 3]
    known = depth[:, :, start::stride, start::stride].flatten(2) > 0  # [B, V, N]
    low, high = _range_of_neighbours(depth)
    rows = []
    for view in range(views):
        pixels, z = project(
            points[:, view, None].expand(batch, views, -1, 3), intrinsics, camera_from_world
        )
        u, v = pixels.unbind(-1)
        inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        column = u.nan_to_num().clamp(0, width - 1).long()
        line = v.nan_to_num().clamp(0, height - 1).long()
        place = line * width + column  # [B, V, N]
        nearest = low.flatten(2).gather(2, place)
        farthest = high.flatten(2).gather(2, place)
        fits = (z > nearest * (1 - tolerance)) & (z < farthest * (1 + tolerance))
        seen = (inside & fits & known[:, view, None]).sum(-1)
        rows.append(seen / known[:, view, None].sum(-1).clamp(min=1))
    return torch.stack(rows, dim=1)


def _range_of_neighbours(depth: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest depth among each pixel and its eight neighbours, the unknown left out."""
    pool = torch.nn.functional.max_pool2d
    known = depth > 0
    flat = torch.where(known, depth, -torch.inf).flatten(0, 1)[:, None]
    high = pool(flat, 3, 1, 1).reshape(depth.shape)
    flat = torch.where(known, -depth, -torch.inf).flatten(0, 1)[:, None]
    low = -pool(flat, 3, 1, 1).reshape(depth.shape)
    return low, high


def pair_statistics(
    depth: Tensor,  # [B, V, H, W] metres along z; 0 is unknown
    intrinsics: Tensor,  # [B, V, 3, 3] pixels
    camera_from_world: Tensor,  # [B, V, 3, 4]
) -> PairStatistics:
    """Medians over all pairs of views of each scene; V must be at least 2."""
    views = depth.shape[1]
    overlap = pairwise_overlap(depth, intrinsics, camera_from_world)
    others = ~torch.eye(views, dtype=torch.bool, device=depth.device)
    pairs = relative_poses(camera_from_world)
    first, second = torch.triu_indices(views, views, 1, device=depth.device)
    angle = rotation_angle(pairs[..., :3])[:, first, second]
    # Centres' distance: |t_ij| of the relative pose, whichever way round.
    distance = pairs[..., 3].square().sum(-1).sqrt()[:, first, second]
    middle = torch.stack([d[d > 0].median() if bool((d > 0).any()) else d.sum() for d in depth])
    return PairStatistics(
        overlap=overlap[:, others].median(-1).values,
        rotation=angle.median(-1).values,
        baseline=distance.median(-1).values / middle.clamp(min=1e-6),
    )
