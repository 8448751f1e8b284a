"""One picture of a cloud with its cameras, as the preview shows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vggt3.io.export.colours import PANEL, camera_colours
from vggt3.io.export.splat import shade, splat
from vggt3.io.export.viewpoint import Array, Viewpoint

_FINER = 2
"""Pictures are drawn at twice their size and reduced, for smooth edges."""

_BEHIND = 70
"""Opacity (of 255) of a camera's edges where points hide them."""


def draw_cloud(
    viewpoint: Viewpoint,
    xyz: Array,  # [N, 3] world
    rgb: NDArray[np.uint8],  # [N, 3]
    frustums: Array,  # [V, 5, 3] world: centre, then the corners around
) -> Image.Image:
    """The cloud from ``viewpoint`` (whose size is ``draw_size`` of the picture wanted)."""
    pixels, depth = viewpoint.project(xyz)
    colours, depths = splat(pixels, depth, rgb, viewpoint.size)
    lit = colours * shade(depths, reach=3, strength=28.0)[..., None]
    filled = np.isfinite(depths)[..., None]
    picture = Image.fromarray(np.where(filled, lit, PANEL).astype(np.uint8))
    overlay = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    _draw_frustums(overlay, viewpoint, depths, frustums)
    picture.paste(overlay, mask=overlay)
    height, width = viewpoint.size
    return picture.resize((width // _FINER, height // _FINER), Image.Resampling.BOX)


def draw_size(size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) at which a viewpoint must draw for a picture of ``size``."""
    return size[0] * _FINER, size[1] * _FINER


def frustum_corners(
    pose: Array,  # [3, 4] world from camera
    intrinsics: Array,  # [3, 3]
    size: tuple[int, int],  # height, width in pixels
    length: float,
) -> Array:
    """[5, 3] in the world: the centre and the image's corners, the farthest side ``length``."""
    height, width = size
    aspect = width / height
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    focal = np.array([intrinsics[0, 0], intrinsics[1, 1]])
    rays = np.array([[-aspect, -1], [aspect, -1], [aspect, 1], [-aspect, 1]]) * 0.5
    if np.isfinite(intrinsics).all() and (focal > 0).all():
        rays = (corners - intrinsics[:2, 2]) / focal
    # An untrained field of view may be nearly 0 or 180 degrees: show one that can be seen.
    reach = np.abs(rays).max()
    rays = rays * (np.clip(reach, 0.2, 1.2) / max(reach, 1e-9))
    seen = np.concatenate([rays, np.ones((4, 1))], axis=1)
    seen *= length / np.linalg.norm(seen, axis=1).max()
    return np.concatenate([pose[None, :, 3], seen @ pose[:, :3].T + pose[:, 3]])


def _draw_frustums(
    overlay: Image.Image,
    viewpoint: Viewpoint,
    depths: NDArray[np.float64],  # [H, W]
    frustums: Array,  # [V, 5, 3]
) -> None:
    canvas = ImageDraw.Draw(overlay, "RGBA")
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
    # The first camera last, on top: its frame is the world's.
    for index in range(len(frustums) - 1, -1, -1):
        corners = frustums[index]
        colour = tuple(int(c) for c in camera_colours(len(frustums))[index])
        screen, _ = viewpoint.project(corners)
        if not np.isfinite(screen).all():
            continue
        canvas.polygon([tuple(p) for p in screen[1:]], fill=(*colour, 46))
        for start, end in edges:
            _draw_edge(canvas, viewpoint, depths, corners[[start, end]], colour)


def _draw_edge(
    canvas: ImageDraw.ImageDraw,
    viewpoint: Viewpoint,
    depths: NDArray[np.float64],
    ends: Array,  # [2, 3] world
    colour: tuple[int, ...],
) -> None:
    """A line in short pieces, each faint where points are in front of it."""
    pieces = 12
    along = np.linspace(0, 1, pieces + 1)[:, None]
    screen, depth = viewpoint.project(ends[0] * (1 - along) + ends[1] * along)
    height, width = depths.shape
    for k in range(pieces):
        middle = (screen[k] + screen[k + 1]) / 2
        column, row = int(middle[0]), int(middle[1])
        inside = 0 <= column < width and 0 <= row < height
        hidden = inside and depths[row, column] < 0.995 * (depth[k] + depth[k + 1]) / 2
        opacity = _BEHIND if hidden else 255
        canvas.line([tuple(screen[k]), tuple(screen[k + 1])], (*colour, opacity), 2 * _FINER)
