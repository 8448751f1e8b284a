"""Drawn photos for the bank: heaps of leaves that cover each other, as in natural pictures.

Pictures of opaque shapes whose sizes follow a power law ("dead leaves") share with photographs
the statistics that matter to a network: edges at all scales, occlusion, and flat parts.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from vggt3.data.procedural.bank import SIDE, Bank, build
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.materials import any_colour, earthen, leafy, pale, varied

Array = NDArray[np.float32]
SMALLEST, LARGEST = 3.0, 110.0
"""Radii of leaves, pixels."""


def drawn_bank(count: int, seed: int) -> Bank:
    """``count`` pictures, each a function of ``seed`` and its number only; 30 ms a picture."""
    pictures = [_picture(Draw(seed, number, SIDE)) for number in range(count)]
    return build(torch.from_numpy(np.stack(pictures)).clamp(0, 1))


def _picture(draw: Draw) -> Array:
    """[3, 256, 256] RGB as displayed."""
    family = draw.choice((any_colour, any_colour, earthen, leafy, pale))
    palette = [family(draw) for _ in range(draw.integer(2, 7))]
    image = np.empty((3, SIDE, SIDE), dtype=np.float32)
    image[:] = np.array(palette[0], dtype=np.float32)[:, None, None]
    steepness = draw.uniform(1.2, 2.6)
    shapes = [draw.weighted((2, 2, 1, 1)) for _ in range(2)]
    spread = draw.uniform(0.05, 0.4)
    leaves = []
    for _ in range(draw.integer(80, 500)):
        share = draw.unit()
        low, high = SMALLEST ** (1 - steepness), LARGEST ** (1 - steepness)
        leaves.append((low + (high - low) * share) ** (1 / (1 - steepness)))
    # Half of the pictures lay large leaves first, so that small ones show on them.
    for radius in sorted(leaves, reverse=True) if draw.chance(0.5) else leaves:
        colour = varied(draw, draw.choice(palette), spread)
        _lay(draw, image, radius, colour, draw.choice(shapes))
    image *= 1 + draw.uniform(0.02, 0.25) * _clouds(draw)
    return np.clip(image, 0, 1) ** np.float32(1 / 2.2)


def _lay(
    draw: Draw, image: Array, radius: float, colour: tuple[float, float, float], shape: int
) -> None:
    """Put one leaf onto the picture."""
    centre_x, centre_y = draw.uniform(0, SIDE), draw.uniform(0, SIDE)
    turn, slim = draw.angle(), draw.uniform(0.25, 1)
    shade_x, shade_y = draw.normal(0.2), draw.normal(0.2)
    reach = radius * 1.5
    left, right = max(0, int(centre_x - reach)), min(SIDE, int(centre_x + reach) + 1)
    top, bottom = max(0, int(centre_y - reach)), min(SIDE, int(centre_y + reach) + 1)
    x = (np.arange(left, right, dtype=np.float32) - centre_x)[None] / radius
    y = (np.arange(top, bottom, dtype=np.float32) - centre_y)[:, None] / radius
    along = x * math.cos(turn) + y * math.sin(turn)
    across = (y * math.cos(turn) - x * math.sin(turn)) / slim
    if shape == 0:
        inside = along**2 + across**2 < 1
    elif shape == 1:
        inside = np.maximum(np.abs(along), np.abs(across)) < 0.9
    elif shape == 2:
        inside = np.abs(along) + np.abs(across) < 1
    else:
        ring = along**2 + across**2
        inside = (ring < 1) & (ring > 0.4)
    light = 1 + shade_x * x + shade_y * y
    part = image[:, top:bottom, left:right]
    leaf = np.array(colour, dtype=np.float32)[:, None, None] * light
    part[:] = np.where(inside, leaf, part)


def _clouds(draw: Draw) -> Array:
    """Noise [256, 256] of several octaves, about in [−1, 1]."""
    total = np.zeros((SIDE, SIDE), dtype=np.float32)
    for cells, weight in ((4, 0.5), (16, 0.3), (64, 0.2)):
        grid = np.array([draw.uniform(-1, 1) for _ in range(cells * cells)], dtype=np.float32)
        square = torch.from_numpy(grid).reshape(1, 1, cells, cells)
        smooth = torch.nn.functional.interpolate(square, SIDE, mode="bilinear")
        total += weight * smooth[0, 0].numpy()
    return total
