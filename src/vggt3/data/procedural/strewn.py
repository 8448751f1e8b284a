"""What makes a scene hard beside its furniture: small things that lie about, and thin ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from vggt3.data.procedural.build import Builder, Point, Rotation, Solid, Spot
from vggt3.data.procedural.furniture import ladder, small_thing
from vggt3.data.procedural.recipes import FURNITURE, Recipe, metal, plain, wood
from vggt3.data.procedural.scene import BOX, CYLINDER

WIRE: tuple[tuple[float, Recipe], ...] = ((2, plain), (1, metal), (1, wood))


def strew(builder: Builder) -> None:
    """Add the clutter and the thin things that the configuration asks for, and no more."""
    draw, config = builder.draw, builder.config
    if config.clutter[1]:
        for _ in range(draw.integer(*config.clutter)):
            small_thing(builder, _somewhere(builder), draw.log_uniform(0.05, 0.4))
    if config.thin[1]:
        for _ in range(draw.integer(*config.thin)):
            draw.choice(THIN)(builder, _somewhere(builder))


def _somewhere(builder: Builder) -> Spot:
    """On the floor, where cameras may be or a little beyond."""
    draw = builder.draw
    low_x, high_x, low_y, high_y = builder.region
    return Spot(draw.uniform(low_x, high_x), draw.uniform(low_y, high_y), 0.0, draw.angle())


def bar(builder: Builder, start: Point, end: Point, radius: float, material: int) -> None:
    """A straight bar, round while there are slots for it."""
    x, y, z = (b - a for a, b in zip(start, end, strict=True))
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-6:
        return
    middle = (start[0] + x / 2, start[1] + y / 2, start[2] + z / 2)
    half = (radius, radius, length / 2)
    solid = Solid(middle, half, _upright_to((x / length, y / length, z / length)), (material,) * 4)
    if not builder.add(CYLINDER, solid):
        builder.add(BOX, solid)


def _upright_to(way: Point) -> Rotation:
    """World from local of a turn that takes the upright axis to the unit vector ``way``."""
    x, y, z = way
    across = math.hypot(x, y)
    side = (-y / across, x / across, 0.0) if across > 1e-9 else (1.0, 0.0, 0.0)
    other = (
        y * side[2] - z * side[1], z * side[0] - x * side[2], x * side[1] - y * side[0],
    )  # fmt: skip
    return (
        (side[0], other[0], x), (side[1], other[1], y), (side[2], other[2], z),
    )  # fmt: skip


def pole(builder: Builder, spot: Spot) -> None:
    """A rod that stands or leans."""
    draw = builder.draw
    high = draw.uniform(0.6, builder.heights[1])
    top = spot.point(draw.normal(0.15) * high, draw.normal(0.15) * high, high)
    material = builder.material(FURNITURE)
    bar(builder, spot.point(0, 0, 0), top, draw.log_uniform(0.005, 0.03), material)


def wire(builder: Builder, spot: Spot) -> None:
    """A cable that hangs between two places."""
    draw = builder.draw
    far, low = draw.uniform(0.8, 3.0), draw.uniform(0.05, 0.5)
    start, end = (draw.uniform(0.6, 1.0) * builder.heights[1] for _ in range(2))
    radius, material = draw.log_uniform(0.003, 0.015), builder.material(WIRE)
    pieces = draw.integer(3, 6)
    places = []
    for n in range(pieces + 1):
        share = n / pieces
        sag = 4 * low * share * (1 - share)
        height = start + (end - start) * share - sag
        places.append(spot.point(far * (share - 0.5), 0, max(0.02, height)))
    for one, following in itertools.pairwise(places):
        bar(builder, one, following, radius, material)


def branch(builder: Builder, spot: Spot) -> None:
    """Twigs that fork from one foot."""
    draw = builder.draw
    material = builder.material([(1.0, wood)])
    foot, high = spot.point(0, 0, 0), draw.uniform(0.5, 1.6)
    fork = spot.point(draw.normal(0.1), draw.normal(0.1), high * draw.uniform(0.3, 0.6))
    thick = draw.log_uniform(0.006, 0.02)
    bar(builder, foot, fork, thick, material)
    for _ in range(draw.integer(2, 5)):
        tip = (
            fork[0] + draw.normal(0.3), fork[1] + draw.normal(0.3),
            fork[2] + draw.uniform(0.1, 0.6) * high,
        )  # fmt: skip
        bar(builder, fork, tip, thick * draw.uniform(0.4, 0.8), material)


THIN: tuple[Callable[[Builder, Spot], None], ...] = (pole, wire, branch, ladder)
