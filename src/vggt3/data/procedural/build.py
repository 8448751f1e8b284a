"""A scene under construction: solids, materials and lights, in the scene's own frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.materials import WIDTH, Column, Material
from vggt3.data.procedural.recipes import Recipe, any_of, plain
from vggt3.data.procedural.scene import BALL, BOX, CYLINDER, SHELL

Point = tuple[float, float, float]
Rotation = tuple[Point, Point, Point]
SHELLS = 3
"""Shells a scene at most: the room, an alcove or a second room, a recess."""


@dataclass(frozen=True)
class Solid:
    """One solid in world axes: unit shape, scaled, turned, moved."""

    centre: Point
    half: Point
    """Half extents, metres."""
    rotation: Rotation
    """World from local, rows."""
    faces: tuple[int, int, int, int]
    """Materials of the sides x, sides y, top, bottom."""


@dataclass(frozen=True)
class Light:
    """One lamp or the sun."""

    position: Point
    colour: Point
    """What arrives at ``reach``, linear RGB."""
    reach: float
    """Metres; beyond it the light falls off quickly."""
    radius: float
    """Metres: how soft its shadows are."""
    shadow: bool = True
    window: int = -1
    """The shell whose walls let it through, for a sun that shines in; −1: none."""


@dataclass(frozen=True)
class Spot:
    """A place to put a piece: furniture is described in its axes (x right, y back, z up)."""

    x: float
    y: float
    z: float
    yaw: float

    def point(self, x: float, y: float, z: float) -> Point:
        """World coordinates of a point given in the spot's axes."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + cos * x - sin * y, self.y + sin * x + cos * y, self.z + z

    def moved(self, x: float, y: float, z: float, turn: float = 0.0) -> Spot:
        """A spot given in this spot's axes."""
        return Spot(*self.point(x, y, z), self.yaw + turn)


def yaw_rotation(yaw: float) -> Rotation:
    """World from local of a turn about the vertical."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return (cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0)


def any_rotation(draw: Draw) -> Rotation:
    """Uniform over all rotations."""
    x, y, z, w = (draw.normal() for _ in range(4))
    s = 2 / (x * x + y * y + z * z + w * w)
    return (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )


@dataclass
class Builder:
    """Collects a scene; a kind whose slots are full silently takes no more."""

    draw: Draw
    config: ProceduralConfig
    solids: tuple[list[Solid], ...] = field(default_factory=lambda: ([], [], [], []))
    rows: list[list[float]] = field(default_factory=list)
    lights: list[list[float]] = field(default_factory=list)
    ambient: list[float] = field(default_factory=lambda: [0.3] * 6)
    sky: list[float] = field(default_factory=lambda: [0.0] * 8)
    points: list[Point] = field(default_factory=list)
    """Places worth looking at."""
    region: tuple[float, float, float, float] = (-2.0, 2.0, -2.0, 2.0)
    """Cameras stand in low x, high x, low y, high y."""
    heights: tuple[float, float] = (0.5, 2.0)
    """Cameras' least and greatest height, metres."""

    def slots(self) -> tuple[int, int, int, int]:
        """Slots of each kind."""
        return SHELLS, self.config.boxes, self.config.balls, self.config.cylinders

    def room_for(self, boxes: int) -> bool:
        """Whether this many more boxes fit."""
        return len(self.solids[BOX]) + boxes <= self.config.boxes

    def material(self, recipes: Sequence[tuple[float, Recipe]] | Material) -> int:
        """The row of a newly drawn material; once the table is full, one that is there."""
        again = self.rows and self.config.repeated and self.draw.chance(self.config.repeated)
        if again or len(self.rows) >= self.config.materials:
            dull = [n for n, row in enumerate(self.rows) if row[Column.EMISSION] == 0]
            return self.draw.choice(dull)
        made = recipes if isinstance(recipes, Material) else any_of(self.draw, tuple(recipes))
        if self.config.weak and self.draw.chance(self.config.weak):
            made = plain(self.draw)
        if self.config.glossy and self.draw.chance(self.config.glossy):
            made.put(SPECULAR=self.draw.uniform(0.3, 1.0), GLOSS=self.draw.log_uniform(15, 150))
        if self.config.bank and self.draw.chance(self.config.photos):
            index = self.draw.integer(0, self.config.bank - 1)
            made.put(IMAGE=float(index), IMAGE_SIZE=self.draw.log_uniform(0.3, 3))
            made.put(IMAGE_SHARE=self.draw.choice((1.0, 1.0, 0.7)))
        self.rows.append(made.row)
        return len(self.rows) - 1

    def add(self, kind: int, solid: Solid) -> bool:
        """Put a solid into the next slot of its kind."""
        if len(self.solids[kind]) >= self.slots()[kind]:
            return False
        self.solids[kind].append(solid)
        return True

    def part(
        self, kind: int, spot: Spot, centre: Point, half: Point, material: int, top: int = -1
    ) -> bool:
        """Put a solid upright into a spot; its top may wear another material."""
        faces = (material, material, material if top < 0 else top, material)
        world = spot.point(*centre)
        return self.add(kind, Solid(world, half, yaw_rotation(spot.yaw), faces))

    def light(self, light: Light) -> None:
        """Add a light."""
        row = [*light.position, *light.colour, light.reach, float(light.shadow), light.radius]
        self.lights.append([*row, float(light.window)])

    def arrays(self) -> SolidArrays:
        """The solids as arrays, in slots."""
        return SolidArrays.of(self.solids, self.slots())

    def table(self) -> NDArray[np.float32]:
        """[M, P] materials."""
        table = np.zeros((self.config.materials, WIDTH), dtype=np.float32)
        table[: len(self.rows)] = self.rows
        return table


@dataclass(frozen=True)
class SolidArrays:
    """K solids in their slots."""

    local_from_world: NDArray[np.float64]
    """[K, 3, 4]"""
    half: NDArray[np.float64]
    """[K, 3] metres."""
    faces: NDArray[np.int64]
    """[K, 4]"""
    counts: tuple[int, ...]
    used: NDArray[np.int64]
    """Slots that hold something."""
    kinds: NDArray[np.int64]
    """[K]"""

    @classmethod
    def of(cls, solids: Sequence[Sequence[Solid]], slots: Sequence[int]) -> SolidArrays:
        """Arrays of the solids of each kind; unused slots hold a speck far below."""
        nothing = Solid((0.0, 0.0, -1e4), (1e-3,) * 3, yaw_rotation(0.0), (0, 0, 0, 0))
        every: list[Solid] = []
        used: list[int] = []
        for kind, room in zip(solids, slots, strict=True):
            used += range(len(every), len(every) + len(kind))
            every += [*kind, *([nothing] * (room - len(kind)))]
        centre = np.array([s.centre for s in every])
        half = np.array([s.half for s in every])
        rotation = np.array([s.rotation for s in every])  # world from local
        linear = rotation.transpose(0, 2, 1) / half[:, :, None]
        shift = -(linear @ centre[:, :, None])
        return cls(
            np.concatenate([linear, shift], axis=2),
            half,
            np.array([s.faces for s in every], dtype=np.int64),
            tuple(len(kind) for kind in solids),
            np.array(used, dtype=np.int64),
            np.repeat(np.array([SHELL, BOX, BALL, CYLINDER]), slots),
        )
