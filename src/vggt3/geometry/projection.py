"""From depth maps to points and from points to pixels.

Pinhole cameras without skew. Pixel coordinates are (u, v) = (along the width, along the height)
in the intrinsics' own coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_grid(
    size: tuple[int, int],
    pixel_offset: float,
    like: Tensor,
) -> Tensor:
    """Coordinates (u, v) [H, W, 2] of all pixel centres, dtype and device of ``like``.

    ``pixel_offset`` is the coordinate of the first pixel's centre: 0.5 where the origin is the
    corner of the top-left pixel (ours), 0 where it is its centre (the public heads).
    """
    height, width = size
    v = torch.arange(height, dtype=like.dtype, device=like.device) + pixel_offset
    u = torch.arange(width, dtype=like.dtype, device=like.device) + pixel_offset
    shape = (height, width)
    return torch.stack([u[None, :].expand(shape), v[:, None].expand(shape)], dim=-1)


def rays(
    intrinsics: Tensor,  # [..., 3, 3] pixels
    size: tuple[int, int],
    pixel_offset: float,
) -> Tensor:
    """Directions [..., H, W, 3] through the pixel centres, camera frame, z = 1."""
    grid = pixel_grid(size, pixel_offset, intrinsics)  # [H, W, 2]
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, None, :2]  # [..., 1, 1, 2]
    principal = intrinsics[..., None, None, :2, 2]
    xy = (grid - principal) / focal
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def unproject(
    depth: Tensor,  # [..., H, W] along z
    intrinsics: Tensor,  # [..., 3, 3] pixels
    camera_from_world: Tensor,  # [..., 3, 4]
    pixel_offset: float,
) -> Tensor:
    """World points [..., H, W, 3] of a depth map, in depth's units.

    ``pixel_offset``: see :func:`pixel_grid`; it belongs to the preset that predicted the depth.
    """
    size = (depth.shape[-2], depth.shape[-1])
    in_camera = rays(intrinsics, size, pixel_offset) * depth[..., None]
    rotation = camera_from_world[..., None, :, :3]  # [..., 1, 3, 3]
    translation = camera_from_world[..., None, None, :, 3]
    return (in_camera - translation) @ rotation


def project(
    points: Tensor,  # [..., N, 3] world
    intrinsics: Tensor,  # [..., 3, 3] pixels
    camera_from_world: Tensor,  # [..., 3, 4]
) -> tuple[Tensor, Tensor]:
    """Pixels (u, v) [..., N, 2] and depth along z [..., N] of world points.

    Nothing is clipped: a point behind the camera has depth ≤ 0 and its pixel means nothing.
    """
    rotation = camera_from_world[..., :3]
    in_camera = points @ rotation.transpose(-1, -2) + camera_from_world[..., None, :, 3]
    depth = in_camera[..., 2]
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, :2]
    principal = intrinsics[..., None, :2, 2]
    pixels = in_camera[..., :2] / depth[..., None] * focal + principal
    return pixels, depth
