"""Which places a light reaches.

Testing every place against every solid is most of a picture's cost, so places are gathered in
tiles, and a solid is tested only against tiles whose bundle of shadow rays comes near it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggt3.data.procedural.scene import SHELL
from vggt3.data.procedural.trace import INTERVAL, NEAR, Frames, box_interval, leave

TILE = 8
"""Pixels a side of a tile."""
REACHED = 1.0 - 1e-4
"""Share of the way to a place that must be free."""


def occluded(
    frames: Frames,
    light: Tensor,  # [F, 3] world, metres
    window: Tensor,  # [F] the shell whose walls let it through, −1: none
    places: Tensor,  # [F, 3, H, W] world, metres
) -> Tensor:
    """Whether a solid or a wall stands between the light and each place, [F, H, W] bool."""
    height, width = places.shape[-2:]
    way = _tiles(places) - light[:, None, :, None]  # [F, T, 3, 64]
    linear = frames.local_from_world[..., :3]
    origin = (linear @ light[:, None, :, None]).squeeze(-1) + frames.local_from_world[..., 3]
    dark = _behind_walls(frames, linear, origin, way, window)
    near_tile = _near_tiles(frames, light, way)  # [F, K, T]
    for kind, interval in INTERVAL.items():
        slots = slice(frames.first[kind], frames.first[kind] + frames.used[kind])
        view, solid, tile = near_tile[:, slots].nonzero(as_tuple=True)
        solid = solid + frames.first[kind]
        d = torch.bmm(linear[view, solid], way[view, tile])  # [pairs, 3, 64]
        o = origin[view, solid][..., None]
        near, far = interval((o[:, 0], o[:, 1], o[:, 2]), (d[:, 0], d[:, 1], d[:, 2]))
        # A lamp inside its own shade shines through it: near < 0 there.
        met = (near < far) & (near < REACHED) & (near > NEAR)
        pair, pixel = met.nonzero(as_tuple=True)
        dark[view[pair], tile[pair], pixel] = True
    return _untiled(dark, height, width)


def _behind_walls(
    frames: Frames, linear: Tensor, origin: Tensor, way: Tensor, window: Tensor
) -> Tensor:
    """Whether the way from the place to the light leaves the union of the shells, [F, T, 64]."""
    intervals = []
    for slot in range(frames.used[SHELL]):
        d = linear[:, slot, None] @ way
        o = origin[:, slot, :, None, None]
        near, far = box_interval((o[:, 0], o[:, 1], o[:, 2]), (d[:, :, 0], d[:, :, 1], d[:, :, 2]))
        # The way was given from the light; the walk begins at the place.
        intervals.append((1 - far, 1 - near))
    end, left_by = leave(intervals)
    return (end < REACHED) & (left_by != window[:, None, None])


def _near_tiles(frames: Frames, light: Tensor, way: Tensor) -> Tensor:
    """Whether each solid may meet a way to each tile, [F, K, T].

    The ways to a tile lie in the hull of the light and a ball around the tile; that hull is a
    union of balls whose centres and radii grow linearly, so the nearest one has a closed form.
    """
    middle = (way.amin(-1) + way.amax(-1)) / 2  # [F, T, 3]
    radius = (way - middle[..., None]).square().sum(2).amax(-1).sqrt()[:, None]  # [F, 1, T]
    solid = frames.middle - light[:, None]  # [F, K, 3]
    length = middle.square().sum(-1).sqrt().clamp(min=1e-6)[:, None]  # [F, 1, T]
    along = solid @ middle.transpose(-1, -2) / length  # [F, K, T]
    across = (solid.square().sum(-1, keepdim=True) - along.square()).clamp(min=0).sqrt()
    slope = (length.square() - radius.square()).clamp(min=1e-12).sqrt()
    share = ((along + across * radius / slope) / length).clamp(0, 1)
    gap = (across.square() + (share * length - along).square()).sqrt() - share * radius
    return (gap <= frames.reach[..., None] * 1.001 + 1e-4) | (radius >= length)


def _tiles(places: Tensor) -> Tensor:
    """[F, 3, H, W] → [F, T, 3, 64]; the last row and column repeat where a tile hangs over."""
    height, width = places.shape[-2:]
    margin = (0, -width % TILE, 0, -height % TILE)
    padded = torch.nn.functional.pad(places, margin, mode="replicate")
    count, _, tall, wide = padded.shape
    split = padded.reshape(count, 3, tall // TILE, TILE, wide // TILE, TILE)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, 3, TILE * TILE)


def _untiled(flags: Tensor, height: int, width: int) -> Tensor:
    """[F, T, 64] → [F, H, W]."""
    rows, columns = -(-height // TILE), -(-width // TILE)
    split = flags.reshape(-1, rows, columns, TILE, TILE).permute(0, 1, 3, 2, 4)
    return split.reshape(-1, rows * TILE, columns * TILE)[:, :height, :width]
