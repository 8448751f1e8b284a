"""A small world seen by cameras on an arc: exact depths, points and photos, by ray casting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vggt3.io import Photo, PhotoSet
from vggt3.types import Cameras, DenseView

_SPHERES = [
    ((0.0, -0.7, 5.0), 0.7, (214, 92, 70)),
    ((-1.6, -0.45, 4.3), 0.45, (84, 150, 204)),
    ((1.5, -0.55, 5.6), 0.55, (228, 186, 84)),
    ((0.8, -0.25, 3.7), 0.25, (120, 176, 104)),
]


def drawn_scene(
    views: int = 5, sizes: tuple[tuple[int, int], ...] = ((56, 84), (84, 56))
) -> tuple[PhotoSet, Cameras, list[DenseView]]:
    """Photos, cameras at their size, and dense views, in the first camera's frame."""
    angles = np.linspace(-0.5, 0.5, views)
    poses = [_pose(angle) for angle in angles]
    to_first = np.linalg.inv(poses[0])
    photos, dense, inverses, matrices = [], [], [], []
    for index, pose in enumerate(poses):
        height, width = sizes[index % len(sizes)]
        focal = 0.9 * max(height, width)
        matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        image, depth, points = _cast(pose, matrix, (height, width))
        local = points @ to_first[:3, :3].T + to_first[:3, 3]
        confidence = 1 + 4 / depth
        photos.append(
            Photo(
                f"view_{index}.png",
                torch.from_numpy(image).permute(2, 0, 1).contiguous(),
                (2 * height, 2 * width),
                Path(f"view_{index}.png"),
            )
        )
        maps = [torch.from_numpy(m).float() for m in (depth, confidence, local, confidence)]
        dense.append(DenseView(index, *maps))
        inverses.append(np.linalg.inv(to_first @ pose)[:3])
        matrices.append(matrix)
    cameras = Cameras(
        torch.from_numpy(np.stack(inverses)).float(),
        torch.from_numpy(np.stack(matrices)).float(),
        tuple(photo.size for photo in photos),
    )
    return PhotoSet(tuple(photos)), cameras, dense


def _pose(angle: float) -> NDArray[np.float64]:
    """World from camera: on a circle about (0, ·, 5), a little raised, looking at its middle."""
    centre = np.array([5 * np.sin(angle), -1.7, 5 - 5 * np.cos(angle)])
    forward = np.array([0, -0.6, 5.0]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross([0, 1.0, 0], forward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, centre], axis=1)
    return pose


def _cast(
    pose: NDArray[np.float64], matrix: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """RGB [H, W, 3], depth along z [H, W] and points [H, W, 3] in the drawn world."""
    height, width = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(matrix).T @ pose[:3, :3].T
    origin = pose[:3, 3]
    best = np.full(size, 40.0)
    colour = np.empty((*size, 3))
    colour[:] = (190, 205, 222)
    for axis, place, tones in ((1, 0.0, (96, 140)), (2, 9.0, (150, 176))):
        reach = (place - origin[axis]) / np.where(rays[..., axis] > 1e-9, rays[..., axis], 1e-9)
        hit = (reach > 0) & (reach < best)
        points = origin + reach[..., None] * rays
        other = points[..., 2] if axis == 1 else points[..., 1]
        check = (np.floor(points[..., 0]) + np.floor(other)) % 2
        tone = np.where(check > 0, *tones)[..., None] * np.array([1.0, 0.97, 0.9])
        best, colour = np.where(hit, reach, best), np.where(hit[..., None], tone, colour)
    for middle, radius, base in _SPHERES:
        gap = origin - np.array(middle)
        a = (rays * rays).sum(-1)
        b = (rays * gap).sum(-1)
        root = b * b - a * (gap @ gap - radius * radius)
        reach = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        hit = (reach > 0) & (reach < best)
        normal = (gap + np.where(hit, reach, 0)[..., None] * rays) / radius
        light = np.clip(normal @ np.array([-0.5, -0.8, -0.35]), 0.25, 1)[..., None]
        best = np.where(hit, reach, best)
        colour = np.where(hit[..., None], np.array(base) * light, colour)
    points = origin + best[..., None] * rays
    return np.clip(colour, 0, 255).astype(np.uint8), best, points
