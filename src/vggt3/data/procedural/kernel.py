"""The renderer in Triton: ``render.py``'s numbers in four launches, for training on a GPU.

It agrees with the plain path but for rounding (a texture's cell or a solid's edge may fall to the
other side in single pixels). ``TRITON_INTERPRET=1`` runs it on a CPU, for tests.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
from torch import Tensor

from vggt3.data.procedural import kernel_develop, kernel_shade, kernel_trace, photometry
from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.materials import WIDTH
from vggt3.data.procedural.photometry import exposed
from vggt3.data.procedural.render import CENTRE, LIGHT_PLACES, ROTATED_GRID
from vggt3.data.procedural.scene import BALL, CYLINDER, SceneParameters
from vggt3.data.procedural.trace import Frames, frames_of

TILE = 16
RAYS_AT_ONCE = 1 << 26
"""Rays whose depth and slot are held together: 8 bytes each."""


def why_not(device: torch.device) -> str | None:
    """The reason why the kernels cannot run on ``device``, or None if they can."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if interpreted or (device.type == "cuda" and torch.version.hip is None):
        return None
    return f"the kernels need a CUDA device, the scenes are on {device}"


@dataclass(frozen=True)
class Tables:
    """What the launches of one chunk share; every tensor contiguous float32 unless said."""

    frames: Frames
    scene: Tensor
    """[F] int32"""
    pinhole: Tensor
    """[F, 4] fx, fy, cx, cy."""
    reach: Tensor
    """[F, K] balls around the solids, −1 where a slot is empty."""
    seen: Tensor
    """[F, K, 3] centres of the solids in camera axes."""
    places: Tensor
    """[S, 2] where in a pixel each ray goes; the last is the centre."""
    lamps: Tensor
    """[S, 3] where on a lamp each sample takes its light."""
    tiles: int
    """T, tiles a view."""


def render_radiance(
    scenes: SceneParameters, bank: Bank | None, samples: int
) -> tuple[Tensor, Tensor]:
    """Radiance [B·V, 3, H, W] and depth [B·V, H, W] (0 in the sky)."""
    height, width = scenes.size
    total = scenes.batch * scenes.views
    chunk = max(1, RAYS_AT_ONCE // (height * width * (samples + 1)))
    radiance = scenes.materials.new_empty(total, 3, height, width)
    depth = scenes.materials.new_empty(total, height, width)
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        flat = torch.arange(start, stop, device=radiance.device)
        tables = _tables(scenes, flat, samples)
        _render_chunk(scenes, bank, tables, samples, radiance[start:stop], depth[start:stop])
    return radiance, depth


def develop(
    radiance: Tensor,  # [B, V, 3, H, W]
    scenes: SceneParameters,
) -> Tensor:
    """``photometry.develop`` in one launch."""
    batch, views, _, height, width = radiance.shape
    image = torch.empty_like(radiance)
    gain = exposed(radiance, scenes).contiguous()
    tiles = triton.cdiv(height, TILE) * triton.cdiv(width, TILE)
    kernel_develop.develop_tiles[(batch * views, tiles)](
        radiance, gain, scenes.photometry, scenes.seed, image, height, width, views,
        photometry.WIDTH, photometry.BLUR_RADIUS, TILE, num_warps=8,
    )  # fmt: skip
    return image


def _tables(scenes: SceneParameters, flat: Tensor, samples: int) -> Tables:
    scene, view = flat // scenes.views, flat % scenes.views
    frames = frames_of(scenes, scene, view)
    k = frames.intrinsics
    pinhole = torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], dim=1)
    kind, number = _slots(scenes.slots, flat.device)
    counts = scenes.counts.to(flat.device, non_blocking=True)
    used = number < counts[scene][:, kind]
    turned = (frames.middle - frames.centre[:, None]) @ frames.rotation
    places, lamps = _aims(samples, flat.device)
    height, width = scenes.size
    return Tables(
        frames=frames,
        scene=scene.to(torch.int32),
        pinhole=pinhole.contiguous(),
        reach=torch.where(used, frames.reach, -1.0).contiguous(),
        seen=turned.contiguous(),
        places=places,
        lamps=lamps,
        tiles=triton.cdiv(height, TILE) * triton.cdiv(width, TILE),
    )


# Sent once a device: a copy from ordinary memory makes the host wait for all that is queued.
@lru_cache(maxsize=64)
def _slots(slots: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Each slot's kind, and its number among those of its kind: two of [K] int64."""
    kinds = [kind for kind, room in enumerate(slots) for _ in range(room)]
    numbers = [number for room in slots for number in range(room)]
    return torch.tensor(kinds, device=device), torch.tensor(numbers, device=device)


@lru_cache(maxsize=64)
def _aims(samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where in a pixel each ray goes [S, 2], and where on a lamp it takes its light [S, 3]."""
    several = samples > 1
    places = [*ROTATED_GRID, CENTRE] if several else [CENTRE]
    lamps = [*LIGHT_PLACES, (0.0, 0.0, 0.0)] if several else [(0.0, 0.0, 0.0)]
    return torch.tensor(places, device=device), torch.tensor(lamps, device=device)


def _render_chunk(
    scenes: SceneParameters,
    bank: Bank | None,
    tables: Tables,
    samples: int,
    radiance: Tensor,
    depth: Tensor,
) -> None:
    """Fill ``radiance`` and ``depth`` of a chunk of views."""
    frames, (height, width) = tables.frames, scenes.size
    count, solids = frames.origin.shape[:2]
    rays = len(tables.places)
    near, slots, bounds = _traced(scenes, tables)
    lights = scenes.lights[tables.scene.long()].contiguous()
    light_count, light_columns = lights.shape[1:]
    listed = slots.new_empty(count, tables.tiles, light_count, solids)
    counts = slots.new_empty(count, tables.tiles, light_count, 3)
    ball, cylinder = scenes.first_slot(BALL), scenes.first_slot(CYLINDER)
    middle = frames.middle.contiguous()
    kernel_trace.list_for_lights[(count, tables.tiles, light_count)](
        lights, middle, tables.reach, bounds, listed, counts, solids,
        ball, cylinder, light_count, light_columns, triton.next_power_of_2(solids),
    )  # fmt: skip
    texels = radiance if bank is None else bank.texels
    kernel_shade.shade_tiles[(count, tables.tiles)](
        tables.scene, tables.pinhole, frames.rotation.contiguous(), frames.centre.contiguous(),
        scenes.local_from_world, scenes.half_m, scenes.face_material, scenes.materials, texels,
        scenes.lights, scenes.ambient, scenes.sky, scenes.seed, middle, tables.places,
        tables.lamps, listed, counts, near, slots, radiance, height, width, solids,
        scenes.materials.shape[1], min(samples, rays), ball, cylinder,
        WIDTH, light_count, light_columns, bank is not None, TILE, num_warps=8, maxnreg=128,
    )  # fmt: skip
    in_sky = (slots[-1] < scenes.first_slot(1)) & (scenes.sky[tables.scene.long(), 0] > 0)[
        :, None, None
    ]
    depth.copy_(torch.where(in_sky, 0.0, near[-1]))


def _traced(scenes: SceneParameters, tables: Tables) -> tuple[Tensor, Tensor, Tensor]:
    """Depth and slot [S, F, H, W] of every ray, and what each tile sees as a box [F, T, 6]."""
    frames, (height, width) = tables.frames, scenes.size
    count, solids = frames.origin.shape[:2]
    rays = len(tables.places)
    ball, cylinder = scenes.first_slot(BALL), scenes.first_slot(CYLINDER)
    listed = tables.scene.new_empty(count, tables.tiles, solids)
    counts = tables.scene.new_empty(count, tables.tiles, 3)
    kernel_trace.list_for_views[(count, tables.tiles)](
        tables.pinhole, tables.seen, tables.reach, listed, counts, width, solids,
        ball, cylinder, TILE, triton.next_power_of_2(solids),
    )  # fmt: skip
    depth = tables.pinhole.new_empty(rays, count, height, width)
    slots = tables.scene.new_empty(rays, count, height, width)
    bounds = tables.pinhole.new_empty(count, tables.tiles, 6)
    is_open = scenes.sky[tables.scene.long(), 0].contiguous()
    kernel_trace.trace_tiles[(count, tables.tiles)](
        tables.pinhole, frames.turn.contiguous(), frames.origin.contiguous(),
        frames.rotation.contiguous(), frames.centre.contiguous(), is_open, tables.places,
        listed, counts, depth, slots, bounds, height, width, solids, rays, TILE, num_warps=8,
    )  # fmt: skip
    return depth, slots, bounds
