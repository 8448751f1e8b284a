"""Points drawn as discs into a picture with a depth buffer, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NOTHING = np.uint64(2**64 - 1)

_LEAST_REACH = 9
"""Pixels on either side within which neighbours close a gap, unless points are large."""


def splat(
    pixels: NDArray[np.float64],  # [N, 2] x, y; NaN is not drawn
    depth: NDArray[np.float64],  # [N] positive
    rgb: NDArray[np.uint8],  # [N, 3]
    size: tuple[int, int],  # height, width
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Colours [H, W, 3] and depths [H, W] (infinite where nothing is) of the nearest points.

    The discs are as large as the number of points in sight calls for, and small gaps between
    points are closed.
    """
    height, width = size
    buffer = np.full(height * width, _NOTHING)
    # A comparison with NaN is false, so what lies behind the eye drops out here too.
    shown = np.flatnonzero(((pixels >= 0) & (pixels < (width, height))).all(axis=1))
    x, y = pixels[shown].astype(np.int64).T
    # One integer to compare: depth (a positive float sorts as its bits do), then which point.
    near = np.minimum(depth[shown], 1e38).astype(np.float32).view(np.uint32).astype(np.uint64)
    np.minimum.at(buffer, y * width + x, (near << np.uint64(32)) | shown.astype(np.uint64))
    grid = buffer.reshape(size)
    radius = _radius(grid)
    grid = _close_gaps(_spread(grid, radius), max(_LEAST_REACH, 3 * radius))
    filled = grid != _NOTHING
    colours = np.zeros((height, width, 3), np.uint8)
    depths = np.full(size, np.inf)
    point = (grid[filled] & np.uint64(2**32 - 1)).astype(np.int64)
    colours[filled], depths[filled] = rgb[point], depth[point]
    return colours, depths


def shade(
    depth: NDArray[np.float64],  # [H, W], infinite where nothing is
    reach: int,
    strength: float,
) -> NDArray[np.float64]:
    """Brightness [H, W] in (0, 1]: dark where neighbours ``reach`` pixels away are nearer.

    It gives bare points the edges that light would (eye-dome lighting).
    """
    far = np.isinf(depth)
    logs = np.log(np.where(far, 1.0, depth))
    hidden = np.zeros_like(logs)
    padded = np.pad(np.where(far, np.inf, logs), reach, constant_values=np.inf)
    height, width = depth.shape
    around = [(0, 1), (0, -1), (1, 0), (-1, 0), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7)]
    for down, across in around:
        row, column = reach + round(down * reach), reach + round(across * reach)
        neighbour = padded[row : row + height, column : column + width]
        hidden += np.clip(logs - neighbour, 0, 0.1)
    return np.where(far, 1.0, np.exp(-strength * hidden / len(around)))


def _radius(grid: NDArray[np.uint64]) -> int:
    """Pixels by which points must grow so that the part of the picture they span is covered."""
    filled = grid != _NOTHING
    count = int(filled.sum())
    if count == 0:
        return 0
    # The area in which there are points, seen through cells of 24 pixels.
    height, width = (side - side % 24 for side in grid.shape)
    cells = filled[:height, :width].reshape(height // 24, 24, width // 24, 24)
    area = max(int(cells.any(axis=(1, 3)).sum()) * 24 * 24, 1)
    return int(np.clip(round(0.75 * np.sqrt(area / count)), 1, 7))


def _spread(grid: NDArray[np.uint64], radius: int) -> NDArray[np.uint64]:
    """The nearest entry within ``radius`` of each pixel."""
    height, width = grid.shape
    padded = np.pad(grid, radius, constant_values=_NOTHING)
    spread = grid.copy()
    row_least = padded[:, radius : radius + width].copy()  # over the columns within `reach`
    reach = 0
    # From the disc's narrow rows, top and bottom, to the wide ones in its middle.
    for down in range(radius, -1, -1):
        while (reach + 1) ** 2 + down * down <= radius * radius + 0.5 * radius:
            reach += 1
            for start in (radius - reach, radius + reach):
                np.minimum(row_least, padded[:, start : start + width], out=row_least)
        for start in {radius - down, radius + down}:
            np.minimum(spread, row_least[start : start + height], out=spread)
    return spread


def _close_gaps(grid: NDArray[np.uint64], reach: int) -> NDArray[np.uint64]:
    """Empty pixels between two filled ones of like depth, at most ``reach`` away on either side.

    Both must lie in one row or one column with the pixel, so outlines do not grow; the nearer
    pair wins, and of its ends the farther point, which lets no object swell.
    """
    closed = grid.copy()
    smallest = np.full(grid.shape, 2 * reach + 1)
    for axis in (0, 1):
        before, after = _filled_around(grid != _NOTHING, axis)
        places = np.arange(grid.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))
        gap = after - before
        near = (places - before <= reach) & (after - places <= reach) & (gap < smallest)
        row, column = np.nonzero(near & (grid == _NOTHING))
        ends = [
            grid[side[row, column], column] if axis == 0 else grid[row, side[row, column]]
            for side in (before, after)
        ]
        alike = _alike(*ends)
        row, column = row[alike], column[alike]
        closed[row, column] = np.maximum(*ends)[alike]
        smallest[row, column] = gap[row, column]
    return closed


def _filled_around(
    filled: NDArray[np.bool_],  # [H, W]
    axis: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nearest filled places at or before and at or after each pixel along ``axis``.

    Where there is none, a place far outside.
    """
    count = filled.shape[axis]
    places = np.arange(count).reshape((-1, 1) if axis == 0 else (1, -1))
    before = np.maximum.accumulate(np.where(filled, places, -10 * count), axis=axis)
    backwards = np.flip(np.where(filled, places, 10 * count), axis=axis)
    after = np.flip(np.minimum.accumulate(backwards, axis=axis), axis=axis)
    return before, after


def _alike(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether the depths of two entries differ by less than a tenth."""
    one, other = (
        np.where(key == _NOTHING, 0, key >> np.uint64(32)).astype(np.uint32).view(np.float32)
        for key in (first, second)
    )
    return (one > 0.9 * other) & (other > 0.9 * one)
