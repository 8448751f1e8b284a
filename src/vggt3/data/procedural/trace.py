"""Where rays end: analytic intersection with all solids of a scene.

A ray is o + t·d in each solid's unit space. Every solid is convex, so it holds the ray over one
interval (near, far); a scene's shells are seen from inside, where their union is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3.data.procedural.scene import BALL, BOX, CYLINDER, SHELL, SceneParameters

NEAR = 1e-3
"""Rays start here (ray parameter: metres of depth)."""
PARALLEL = 1e-25
"""Added to a direction before it divides: a ray exactly along a face would give 0 · ∞. It is lost
in rounding everywhere else."""

Interval = tuple[Tensor, Tensor]
Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Frames:
    """F views (of one or more scenes) with the solids of each in its camera's frame."""

    turn: Tensor
    """[F, K, 3, 3] local direction from camera direction."""
    origin: Tensor
    """[F, K, 3] camera centre in each unit space."""
    local_from_world: Tensor
    """[F, K, 3, 4]"""
    middle: Tensor
    """[F, K, 3] centres of the solids, world, metres."""
    half: Tensor
    """[F, K, 3] half extents, metres."""
    reach: Tensor
    """[F, K] radius of a ball around each solid, metres."""
    rotation: Tensor
    """[F, 3, 3] world from camera."""
    centre: Tensor
    """[F, 3] camera centres, metres."""
    intrinsics: Tensor
    """[F, 3, 3]"""
    used: tuple[int, int, int, int]
    """Slots to visit of each kind: the most that one of these scenes uses."""
    first: tuple[int, int, int, int]
    """The first slot of each kind."""


def frames_of(scenes: SceneParameters, scene: Tensor, view: Tensor) -> Frames:
    """The views ``view[f]`` of scenes ``scene[f]`` (both [F] int64)."""
    pose = scenes.camera_from_world[scene, view]
    rotation = pose[:, :, :3].transpose(-1, -2)
    centre = -(rotation @ pose[:, :, 3:]).squeeze(-1)
    local_from_world = scenes.local_from_world[scene]
    linear = local_from_world[..., :3]
    origin = (linear @ centre[:, None, :, None]).squeeze(-1) + local_from_world[..., 3]
    # Counts stay on the host, so that an accelerator is not waited for.
    counts = scenes.counts if scene.device != scenes.counts.device else scenes.counts[scene]
    used = counts.amax(0).tolist()
    half = scenes.half_m[scene]
    return Frames(
        turn=linear @ rotation[:, None],
        origin=origin,
        local_from_world=local_from_world,
        middle=-(linear.transpose(-1, -2) @ (half.square() * local_from_world[..., 3])[..., None])[
            ..., 0
        ],
        half=half,
        reach=half.square().sum(-1).sqrt(),
        rotation=rotation,
        centre=centre,
        intrinsics=scenes.intrinsics[scene, view],
        used=(used[SHELL], used[BOX], used[BALL], used[CYLINDER]),
        first=(0, scenes.first_slot(BOX), scenes.first_slot(BALL), scenes.first_slot(CYLINDER)),
    )


def box_interval(origin: Vector, direction: Vector) -> Interval:
    """(near, far) of rays in the cube [−1, 1]³; near > far where they miss."""
    near = far = None
    for o, d in zip(origin, direction, strict=True):
        inverse = (d + PARALLEL).reciprocal()
        middle, reach = -o * inverse, inverse.abs()
        low, high = middle - reach, middle + reach
        near = low if near is None else torch.maximum(near, low)
        far = high if far is None else torch.minimum(far, high)
    assert near is not None and far is not None
    return near, far


def ball_interval(origin: Vector, direction: Vector) -> Interval:
    """(near, far) of rays in the unit ball; NaN, which no comparison accepts, for a miss."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    inverse = (dx * dx + dy * dy + dz * dz).reciprocal()
    middle = -(ox * dx + oy * dy + oz * dz) * inverse
    # The point closest to the centre first: b² − a·c would cancel for distant small balls.
    px, py, pz = ox + middle * dx, oy + middle * dy, oz + middle * dz
    reach = ((1 - px * px - py * py - pz * pz) * inverse).sqrt()
    return middle - reach, middle + reach


def cylinder_interval(origin: Vector, direction: Vector) -> Interval:
    """(near, far) of rays in the upright unit cylinder; NaN or near > far for a miss."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    inverse = (dx * dx + dy * dy).clamp(min=1e-20).reciprocal()
    middle = -(ox * dx + oy * dy) * inverse
    px, py = ox + middle * dx, oy + middle * dy
    reach = ((1 - px * px - py * py) * inverse).sqrt()
    upright = (dz + PARALLEL).reciprocal()
    mid_z, reach_z = -oz * upright, upright.abs()
    near = torch.maximum(middle - reach, mid_z - reach_z)
    return near, torch.minimum(middle + reach, mid_z + reach_z)


INTERVAL = {BOX: box_interval, BALL: ball_interval, CYLINDER: cylinder_interval}


def leave(intervals: list[Interval]) -> tuple[Tensor, Tensor]:
    """Where rays that start inside the union of shells leave it: (t, slot).

    Walking on from shell to shell needs as many rounds as there are shells, in the worst order.
    """
    end = torch.zeros_like(intervals[0][0])
    slot = torch.zeros_like(end, dtype=torch.int64)
    for _ in intervals:
        for number, (near, far) in enumerate(intervals):
            further = (near <= end + 1e-4) & (far > end)
            end = torch.where(further, far, end)
            slot.masked_fill_(further, number)
    return end, slot


def camera_rays(frames: Frames, size: tuple[int, int], offset: tuple[float, float]) -> Interval:
    """Camera directions (x, y, 1): x as [F, 1, W], y as [F, H, 1].

    ``offset`` is where in each pixel the ray goes, (along u, along v) in [0, 1].
    """
    height, width = size
    k = frames.intrinsics
    u = torch.arange(width, dtype=k.dtype, device=k.device) + offset[0]
    v = torch.arange(height, dtype=k.dtype, device=k.device) + offset[1]
    x = (u[None, None, :] - k[:, 0, 2, None, None]) / k[:, 0, 0, None, None]
    y = (v[None, :, None] - k[:, 1, 2, None, None]) / k[:, 1, 1, None, None]
    return x, y


def trace(
    frames: Frames,
    x: Tensor,  # [F, 1, W]
    y: Tensor,  # [F, H, 1]
) -> tuple[Tensor, Tensor]:
    """Depth [F, H, W] and slot [F, H, W] int64 of what each camera ray meets first."""

    def local(slot: int, rows: slice, columns: slice) -> tuple[Vector, Vector]:
        m = frames.turn[:, slot, :, :, None, None]
        o = frames.origin[:, slot, :, None, None]
        xs, ys = x[..., columns], y[:, rows]
        direction = tuple(m[:, i, 0] * xs + (m[:, i, 1] * ys + m[:, i, 2]) for i in range(3))
        return (o[:, 0], o[:, 1], o[:, 2]), (direction[0], direction[1], direction[2])

    everything = slice(None)
    shells = [local(slot, everything, everything) for slot in range(frames.used[SHELL])]
    best, index = leave([box_interval(o, d) for o, d in shells])
    windows = _windows(frames, x, y)
    for kind, interval in INTERVAL.items():
        for slot in range(frames.first[kind], frames.first[kind] + frames.used[kind]):
            rows, columns = windows[slot]
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue
            near, far = interval(*local(slot, rows, columns))
            nearest = best[:, rows, columns]
            hit = (near < far) & (near > NEAR) & (near < nearest)
            nearest.copy_(torch.where(hit, near, nearest))
            index[:, rows, columns].masked_fill_(hit, slot)
    return best, index


def _windows(frames: Frames, x: Tensor, y: Tensor) -> list[tuple[slice, slice]]:
    """For each slot, rows and columns outside of which no ray can meet it."""
    signs = torch.tensor([-1.0, 1.0], dtype=x.dtype, device=x.device)
    corners = torch.cartesian_prod(signs, signs, signs)  # [8, 3]
    # The unit cube's corners in camera axes: turn's inverse is turnᵀ · half².
    away = (corners - frames.origin[:, :, None]) * frames.half[:, :, None].square()
    seen = frames.turn.transpose(-1, -2) @ away.transpose(-1, -2)  # [F, K, 3, 8]
    ahead = seen[:, :, 2] > NEAR
    slope = seen[:, :, :2] / seen[:, :, 2:].clamp(min=NEAR)
    focal = frames.intrinsics.diagonal(dim1=-2, dim2=-1)[:, None, :2, None]
    pixel = slope * focal + frames.intrinsics[:, None, :2, 2:]  # [F, K, 2, 8]
    limit = torch.tensor([float(x.shape[2]), float(y.shape[1])], device=x.device)
    low = (pixel.amin(-1) - 2).clamp(min=0)
    high = (pixel.amax(-1) + 2).minimum(limit)
    partly, behind = ~ahead.all(-1)[..., None], ~ahead.any(-1)[..., None]
    low = torch.where(behind, limit, torch.where(partly, 0.0, low)).amin(0)
    high = torch.where(behind, 0.0, torch.where(partly, limit, high)).amax(0)
    bounds = torch.cat([low.floor(), high.ceil()], dim=-1).to(torch.int64).tolist()
    return [(slice(top, bottom), slice(left, right)) for left, top, right, bottom in bounds]
