"""Pictures and depth of drawn scenes, in plain torch on any device.

The canonical renderer: ``kernel.py`` computes the same in one pass a pixel on a GPU, and is held
to this by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.jpeg import compressed
from vggt3.data.procedural.materials import Column
from vggt3.data.procedural.noise import value_noise
from vggt3.data.procedural.photometry import Column as Photometry
from vggt3.data.procedural.photometry import develop
from vggt3.data.procedural.scene import SceneBatch, SceneParameters
from vggt3.data.procedural.shadow import occluded
from vggt3.data.procedural.texture import Place, albedo
from vggt3.data.procedural.trace import Frames, camera_rays, frames_of, trace
from vggt3.geometry.camera import normalise_to_first

Renderer = Literal["auto", "torch", "triton"]
CENTRE = (0.5, 0.5)
LIGHT_PLACES = ((0.6, 0.6, 0.6), (0.6, -0.6, -0.6), (-0.6, 0.6, -0.6), (-0.6, -0.6, 0.6))
"""Where on a lamp each of four samples takes its light from, in radii: soft shadows."""
ROTATED_GRID = ((0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875))
"""Four places in a pixel with distinct rows and columns: smooth edges at any slope."""
RAYS_AT_ONCE = 1 << 23
"""Rays a chunk on an accelerator."""
DEPTHS_AT_ONCE = 1 << 15
"""Rays a chunk where only depth is wanted: small maps of many views go together."""
SKIN = 2e-3
"""Metres by which a shadow ray ends before the surface."""
LEAST_FOOTPRINT = 1e-9
"""Metres; a camera that touches a surface still divides by it."""


@dataclass(frozen=True)
class Hits:
    """N = F·H·W first hits, flat."""

    depth: Tensor
    """[N] along z, metres."""
    place: Place
    material: Tensor
    """[P, N]"""
    position: Tensor
    """[3, N] world, metres."""
    normal: Tensor
    """[3, N] world, unit, towards the camera."""
    direction: Tensor
    """[3, N] world, camera to surface, unit."""


def render(
    scenes: SceneParameters,
    bank: Bank | None = None,
    samples: int = 4,
    renderer: Renderer = "auto",
) -> SceneBatch:
    """Images, depth and cameras of all views, on the device where ``scenes`` lies.

    ``samples``: colours taken a pixel, 1 (its centre) or 4. Depth is always the centre's.
    ``renderer``: ``torch`` runs everywhere, ``triton`` on a CUDA device; ``auto`` takes the
    fastest that is there.
    """
    checks.require(samples in (1, 4), "samples", "be 1 or 4", samples)
    with exact_products():
        return _render(scenes, bank, samples, renderer)


def _render(
    scenes: SceneParameters, bank: Bank | None, samples: int, renderer: Renderer
) -> SceneBatch:
    on_host = scenes.seed.device.type == "cpu"
    plain = renderer == "torch" or (renderer == "auto" and on_host)
    reason = None if plain else kernel_reason(scenes.seed.device)
    if renderer == "triton" and reason is not None:
        checks.fail("renderer", "be able to run here", f"'triton': {reason}")
    shape = (scenes.batch, scenes.views)
    if not plain and reason is None:
        from vggt3.data.procedural import kernel

        radiance, depth = kernel.render_radiance(scenes, bank, samples)
        images = kernel.develop(radiance.unflatten(0, shape), scenes)
    else:
        radiance, depth = render_radiance(scenes, bank, samples)
        images = develop(radiance.unflatten(0, shape), scenes)
    if scenes.jpeg:
        images = compressed(images, scenes.photometry[..., Photometry.QUALITY])
    depth = depth.unflatten(0, shape)
    return SceneBatch(
        images=images,
        depth=depth,
        valid=depth > 0,
        camera_from_world=normalise_to_first(scenes.camera_from_world),
        intrinsics=scenes.intrinsics,
    )


@contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products of geometry keep their 24 bits, whatever a training allows its own.

    TF32's 11 would move cameras by millimetres against the truth that is handed out with them.
    """
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(allowed)


def kernel_reason(device: torch.device) -> str | None:
    """Why the fused kernels cannot run on ``device``; None if they can."""
    try:
        from vggt3.data.procedural import kernel
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    return kernel.why_not(device)


def render_radiance(
    scenes: SceneParameters, bank: Bank | None, samples: int
) -> tuple[Tensor, Tensor]:
    """Radiance [B·V, 3, H, W] and depth [B·V, H, W] (0 in the sky)."""
    height, width = scenes.size
    device = scenes.seed.device
    total = scenes.batch * scenes.views
    chunk = views_at_once(device, scenes.size)
    radiance = torch.empty(total, 3, height, width, device=device)
    depth = torch.empty(total, height, width, device=device)
    aims = [(CENTRE, (0.0, 0.0, 0.0))]
    if samples > 1:
        aims = list(zip(ROTATED_GRID, LIGHT_PLACES, strict=True))

    @torch.no_grad()
    def fill(start: int) -> None:
        stop = min(start + chunk, total)
        flat = torch.arange(start, stop, device=device)
        scene = flat // scenes.views
        frames = frames_of(scenes, scene, flat % scenes.views)
        colours = [shoot(scenes, scene, frames, bank, aim) for aim in aims]
        radiance[start:stop] = torch.stack([colour for colour, _ in colours]).mean(0)
        depth[start:stop] = colours[0][1] if samples == 1 else depth_only(scenes, scene, frames)

    _side_by_side(fill, range(0, total, chunk), device)
    return radiance, depth


def _side_by_side(work: Callable[[int], None], starts: range, device: torch.device) -> None:
    """``work`` at every start: on a CPU, one view a thread, not one operation on all threads.

    A view's operations are too short to share: their threads would mostly wait for each other,
    and on a busy machine take five times as long as one alone.
    """
    threads = min(torch.get_num_threads(), len(starts))
    if device.type != "cpu" or threads < 2:
        for start in starts:
            work(start)
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, starts))
    finally:
        torch.set_num_threads(before)


def views_at_once(device: torch.device, size: tuple[int, int]) -> int:
    """How many views to work on together: on a CPU, one stays in the cache."""
    return 1 if device.type == "cpu" else max(1, RAYS_AT_ONCE // (size[0] * size[1]))


def depth_only(scenes: SceneParameters, scene: Tensor, frames: Frames) -> Tensor:
    """Depth [F, H, W] at the pixel centres, 0 in the sky."""
    x, y = camera_rays(frames, scenes.size, CENTRE)
    depth, index = trace(frames, x, y)
    return torch.where(_in_sky(scenes, scene, frames, index), 0.0, depth)


def render_depth(scenes: SceneParameters) -> Tensor:
    """Depth [B, V, H, W] alone, without any colour."""
    height, width = scenes.size
    flat = torch.arange(scenes.batch * scenes.views, device=scenes.seed.device)
    maps = []
    for piece in flat.split(max(1, DEPTHS_AT_ONCE // (height * width))):
        scene = piece // scenes.views
        frames = frames_of(scenes, scene, piece % scenes.views)
        maps.append(depth_only(scenes, scene, frames))
    return torch.cat(maps).reshape(scenes.batch, scenes.views, height, width)


def shoot(
    scenes: SceneParameters,
    scene: Tensor,
    frames: Frames,
    bank: Bank | None,
    aim: tuple[tuple[float, float], tuple[float, float, float]] = (CENTRE, (0.0, 0.0, 0.0)),
) -> tuple[Tensor, Tensor]:
    """Radiance [F, 3, H, W] and depth [F, H, W] of one ray a pixel.

    ``aim``: the place in the pixel, and the place on the lamps in radii.
    """
    x, y = camera_rays(frames, scenes.size, aim[0])
    depth, index = trace(frames, x, y)
    sky = _in_sky(scenes, scene, frames, index)
    hits = _hits(scenes, scene, frames, (x, y), depth, index)
    surface = albedo(hits.material, hits.place, bank)
    lights = scenes.lights[scene]
    places = lights.new_tensor(aim[1]) * lights[..., 8:9]
    lights = torch.cat([lights[..., :3] + places, lights[..., 3:]], dim=-1)
    colour = _lit(scenes, scene, frames, hits, surface, lights)
    count = depth.shape[0]
    if bool(sky.any()):
        direction = hits.direction.reshape(3, count, -1)
        above = _sky_colour(scenes.sky[scene], direction, scenes.seed[scene])
        colour = torch.where(sky.flatten(), above.reshape(3, -1), colour)
    image = colour.reshape(3, *depth.shape).transpose(0, 1)
    return image, torch.where(sky, 0.0, depth)


def _in_sky(scenes: SceneParameters, scene: Tensor, frames: Frames, index: Tensor) -> Tensor:
    is_open = scenes.sky[scene, 0] > 0
    return is_open[:, None, None] & (index < frames.first[1])


def _hits(
    scenes: SceneParameters,
    scene: Tensor,
    frames: Frames,
    rays: tuple[Tensor, Tensor],
    depth: Tensor,
    index: Tensor,
) -> Hits:
    """What lies where the rays ended."""
    count, solids = frames.origin.shape[:2]
    shape = depth.shape
    view = torch.arange(count, device=depth.device)[:, None, None].expand(shape)
    slot = (view * solids + index).flatten()

    table = frames.local_from_world.reshape(-1, 12).T.contiguous()
    affine = table.index_select(1, slot).reshape(3, 4, -1)  # [3, 4, N]
    half = scenes.half_m[scene].reshape(-1, 3).T.contiguous().index_select(1, slot)
    x, y = rays
    steps = frames.rotation[:, :, :, None, None]
    way = [steps[:, i, 0] * x + (steps[:, i, 1] * y + steps[:, i, 2]) for i in range(3)]
    world = torch.stack([w.reshape(-1) for w in way])  # [3, N]
    flat = depth.flatten()
    origin = frames.centre.T[:, :, None, None].expand(3, *shape).reshape(3, -1)
    position = origin + flat * world
    local = (affine[:, :3] * position).sum(1) + affine[:, 3]

    kind_ball = (index >= frames.first[2]) & (index < frames.first[3])
    kind_cylinder = index >= frames.first[3]
    gradient = _gradient(local, kind_ball.flatten(), kind_cylinder.flatten())
    normal = (affine[:, :3] * gradient[:, None]).sum(0)  # transposed map
    normal = normal / normal.square().sum(0).sqrt().clamp(min=1e-12)
    length = world.square().sum(0).sqrt()
    direction = world / length
    facing = (normal * direction).sum(0)
    normal = torch.where(facing > 0, -normal, normal)

    axis = (gradient / half).abs().argmax(0)
    positive = gradient.gather(0, axis[None])[0] > 0
    faces = scenes.face_material[scene].reshape(-1, 4).T.contiguous().index_select(1, slot)
    wanted = torch.where((axis == 2) & ~positive, 3, axis)
    row = faces.gather(0, wanted[None])[0] + view.flatten() * scenes.materials.shape[1]
    materials = scenes.materials[scene].reshape(-1, scenes.materials.shape[2]).T.contiguous()
    focal = frames.intrinsics[:, 0, 0, None, None].expand(shape).reshape(-1)
    place = Place(
        position=local * half,
        axis=axis,
        face=(2 * axis + positive).to(torch.int32),
        footprint=(flat * length / focal / facing.abs().clamp(min=0.15)).clamp(min=LEAST_FOOTPRINT),
    )
    return Hits(flat, place, materials.index_select(1, row), position, normal, direction)


def _gradient(local: Tensor, ball: Tensor, cylinder: Tensor) -> Tensor:
    """Outward direction [3, N] in unit space of the shapes' surfaces."""
    size = local.abs()
    largest = size.argmax(0)
    cube = torch.zeros_like(local).scatter_(0, largest[None], 1.0) * local.sign()
    cap = (size[2] > (local[0].square() + local[1].square()).sqrt())[None]
    upright = torch.tensor([0.0, 0.0, 1.0], device=local.device)[:, None]
    around = torch.where(cap, local.sign() * upright, local * (1 - upright))
    return torch.where(ball, local, torch.where(cylinder, around, cube))


def _lit(
    scenes: SceneParameters,
    scene: Tensor,
    frames: Frames,
    hits: Hits,
    colour: Tensor,
    lights: Tensor,  # [F, L, 10]
) -> Tensor:
    """Radiance [3, N] of surfaces under the scene's lights."""
    count = frames.centre.shape[0]

    def spread(values: Tensor) -> Tensor:  # [F, C] → [C, N]
        pixels = hits.depth.numel() // count
        return values.T[:, :, None].expand(-1, -1, pixels).reshape(values.shape[1], -1)

    ambient = scenes.ambient[scene]
    upwards = 0.5 + 0.5 * hits.normal[2]
    diffuse = torch.lerp(spread(ambient[:, 3:]), spread(ambient[:, :3]), upwards)
    diffuse = diffuse * _openness(
        hits, spread(frames.middle[:, 0, :2]), spread(scenes.half_m[scene, 0, :2])
    )
    shine = torch.zeros_like(diffuse)
    gloss = hits.material[Column.GLOSS]
    places = (hits.position + SKIN * hits.normal).reshape(3, count, *scenes.size)
    places = places.transpose(0, 1)
    for light in lights.unbind(1):
        to_light = spread(light[:, :3]) - hits.position
        distance = to_light.square().sum(0).sqrt()
        towards = to_light / distance.clamp(min=1e-6)
        falloff = 2 / (1 + (distance / spread(light[:, 6:7])[0]).square())
        strength = (hits.normal * towards).sum(0).clamp(min=0) * falloff
        if bool((light[:, 7] > 0).any()):
            shadow = occluded(frames, light[:, :3], light[:, 9], places)
            dark = shadow & (light[:, 7, None, None] > 0)
            strength = torch.where(dark.flatten(), 0.0, strength)
        arriving = spread(light[:, 3:6]) * strength
        diffuse = diffuse + arriving
        middle = towards - hits.direction
        middle = middle / middle.square().sum(0).sqrt().clamp(min=1e-6)
        shine = shine + arriving * (hits.normal * middle).sum(0).clamp(min=1e-4) ** gloss
    specular = hits.material[Column.SPECULAR]
    return colour * (diffuse + hits.material[Column.EMISSION]) + specular * shine


def _openness(hits: Hits, middle: Tensor, half: Tensor) -> Tensor:
    """Share [N] of the soft light that corners along the floor and the walls leave."""
    height = hits.position[2].clamp(min=0)
    share = 1 - 0.4 * torch.exp(-4 * height) * (1 - hits.normal[2].clamp(min=0))
    for axis in (0, 1):
        distance = (half[axis] - (hits.position[axis] - middle[axis]).abs()).abs()
        share = share * (1 - 0.35 * torch.exp(-3 * distance) * (1 - hits.normal[axis].abs()))
    return share


def _sky_colour(sky: Tensor, direction: Tensor, seed: Tensor) -> Tensor:
    """Radiance [3, F, N'] of the sky of each view along ``direction`` [3, F, N']."""
    rise = direction[2].clamp(0, 1)
    zenith = sky[:, 1:4].T[:, :, None]
    horizon = sky[:, 4:7].T[:, :, None]
    blue = torch.lerp(horizon, zenith, rise.sqrt())
    spread = 1.5 / (rise + 0.15)
    x, y = direction[0] * spread, direction[1] * spread
    start = seed.to(torch.int32)[:, None].expand_as(x)
    cloud = torch.zeros_like(x)
    for octave, amplitude in enumerate((0.6, 0.3, 0.15)):
        scale = 2.3**octave
        layer = torch.full_like(x, octave * 7.0)
        cloud = cloud + amplitude * value_noise(x * scale, y * scale, layer, start + octave)
    cover = (cloud + sky[:, 7, None] - 0.5).mul(2).clamp(0, 1) * (rise * 4).clamp(0, 1)
    return torch.lerp(blue, torch.full_like(blue, 0.9), cover)
