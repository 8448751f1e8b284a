"""From a seed and an index to the parameters of a scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vggt3 import checks
from vggt3.data.procedural import photometry, rooms, yards
from vggt3.data.procedural.build import Builder
from vggt3.data.procedural.cameras import Shot, shots
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.overlap import pairwise_overlap
from vggt3.data.procedural.render import render_depth
from vggt3.data.procedural.scene import SceneParameters
from vggt3.data.procedural.strewn import strew
from vggt3.geometry.camera import look_at
from vggt3.geometry.rotation import axis_angle_to_matrix

LIGHTS = 3
"""L."""

OVERLAP_TRIES = 8
"""Sets of cameras tried where a range of overlap is asked for."""
COARSE_SIZE, COARSE_VIEWS = 24, 24

Row = list[float]


def draw_scene(config: ProceduralConfig, seed: int, index: int) -> SceneParameters:
    """Scene ``index`` of the endless sequence that ``seed`` names, as a batch of one.

    Always drawn on the CPU; equal (config, seed, index) give equal scenes on every machine.
    """
    checks.require(seed >= 0 and index >= 0, "seed and index", "be ≥ 0", (seed, index))
    draw = Draw(seed, index)
    builder = Builder(draw, config)
    kinds: tuple[Callable[[Builder], None], ...] = (
        yards.yard, rooms.heap_of_solids, rooms.room,
    )  # fmt: skip
    inside = max(0.0, 1 - config.outdoors - config.abstract)
    kinds[draw.weighted((config.outdoors, config.abstract, inside))](builder)
    strew(builder)
    low, high = config.spread
    best, least_miss = None, math.inf
    for _ in range(1 if config.overlap is None else OVERLAP_TRIES):
        spread = draw.uniform(low, high)
        scene = _parameters(builder, shots(builder, spread))
        if config.overlap is None:
            return scene
        overlap = _coarse_overlap(scene)
        miss = max(config.overlap[0] - overlap, overlap - config.overlap[1])
        if best is None or miss < least_miss:
            best, least_miss = scene, miss
        if miss <= 0:
            break
        low, high = (low, spread) if overlap < config.overlap[0] else (spread, high)
    assert best is not None
    return best


def _coarse_overlap(scene: SceneParameters) -> float:
    """Median pairwise overlap of a scene, from small depth maps of some of its views."""
    step = -(-scene.views // COARSE_VIEWS)
    height, width = scene.size
    size = (COARSE_SIZE, max(2, round(COARSE_SIZE * width / height)))
    scale = torch.tensor([[size[1] / width], [size[0] / height], [1.0]])
    small = replace(
        scene,
        camera_from_world=scene.camera_from_world[:, ::step],
        intrinsics=scene.intrinsics[:, ::step] * scale,
        size=size,
    )
    overlap = pairwise_overlap(
        render_depth(small), small.intrinsics, small.camera_from_world, stride=2
    )
    others = ~torch.eye(small.views, dtype=torch.bool)
    return float(overlap[0][others].median()) if small.views > 1 else 1.0


def _parameters(builder: Builder, taken: list[Shot]) -> SceneParameters:
    draw, config = builder.draw, builder.config
    arrays = builder.arrays()
    lights = [*builder.lights, *([[0.0, 0.0, 1.0, 0, 0, 0, 1.0, 0.0, 0.0, -1.0]] * LIGHTS)][:LIGHTS]
    pose, intrinsics = _cameras(draw, config, taken)
    settings = _photometry(draw, config)
    seed = draw.seed()
    if config.jpeg is not None:
        for row in settings:
            row[photometry.Column.QUALITY] = draw.uniform(*config.jpeg)

    def single(values: object) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32))[None]

    return SceneParameters(
        local_from_world=single(arrays.local_from_world),
        half_m=single(arrays.half),
        face_material=torch.from_numpy(arrays.faces)[None],
        counts=torch.tensor([arrays.counts], dtype=torch.int64),
        materials=torch.from_numpy(builder.table())[None],
        lights=single(lights),
        ambient=single(builder.ambient),
        sky=single(builder.sky),
        camera_from_world=pose[None],
        intrinsics=intrinsics[None],
        photometry=single(settings),
        seed=torch.tensor([seed], dtype=torch.int64),
        slots=builder.slots(),
        size=config.size,
        jpeg=config.jpeg is not None,
    )


def _cameras(draw: Draw, config: ProceduralConfig, taken: list[Shot]) -> tuple[Tensor, Tensor]:
    """camera_from_world [V, 3, 4] and intrinsics [V, 3, 3]."""
    height, width = config.size
    centre = torch.tensor([shot.centre for shot in taken], dtype=torch.float64)
    target = torch.tensor([shot.target for shot in taken], dtype=torch.float64)
    # Straight up or down has no up: tilt by a hair.
    target[:, 0] += 1e-4
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(centre)
    pose = look_at(centre, target, up)
    roll = torch.tensor(
        [math.radians(draw.normal(config.roll_deg)) for _ in taken], dtype=torch.float64
    )
    turn = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), roll)
    pose = (turn @ pose).float()
    shared = draw.uniform(*config.fov_deg)
    each = not draw.chance(config.one_camera)
    focal = []
    for _ in taken:
        fov = draw.uniform(*config.fov_deg) if each else shared
        focal.append(max(height, width) / 2 / math.tan(math.radians(fov) / 2))
    intrinsics = torch.zeros(len(taken), 3, 3)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = torch.tensor(focal)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = width / 2, height / 2
    intrinsics[:, 2, 2] = 1
    return pose, intrinsics


def _photometry(draw: Draw, config: ProceduralConfig) -> list[Row]:
    """One row of ``photometry.Column`` a view."""
    base = 2 ** draw.normal(0.2)
    contrast = draw.uniform(0.85, 1.15)
    noise = draw.unit() ** 2 * config.noise
    vignette = draw.uniform(0, 0.35)
    rows = []
    for _ in range(config.views):
        row = [0.0] * photometry.WIDTH
        row[photometry.Column.EXPOSURE] = base * 2 ** draw.normal(config.exposure)
        row[photometry.Column.RED] = math.exp(draw.normal(config.white_balance))
        row[photometry.Column.BLUE] = math.exp(draw.normal(config.white_balance))
        row[photometry.Column.VIGNETTE] = vignette
        row[photometry.Column.BLUR] = draw.unit() ** 2 * config.blur
        row[photometry.Column.NOISE] = noise
        row[photometry.Column.CONTRAST] = contrast
        rows.append(row)
    return rows


class ProceduralScenes(Dataset[SceneParameters]):
    """Scenes ``first``, ``first + 1``, … of a seed; no two workers ever draw the same one.

    A worker yields parameters (a batch of one; ``scene.collate`` joins them), never pictures.
    """

    def __init__(self, config: ProceduralConfig, seed: int, count: int, first: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.count = count
        self.first = first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> SceneParameters:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return draw_scene(self.config, self.seed, self.first + index)
