"""Yards: ground under an open sky, façades with relief, low walls, trees, things."""

from __future__ import annotations

import math
from collections.abc import Callable

from vggt3.data.procedural.build import (
    Builder,
    Light,
    Rotation,
    Solid,
    Spot,
    any_rotation,
    yaw_rotation,
)
from vggt3.data.procedural.furniture import (
    chairs_around,
    door,
    heap,
    ladder,
    pilasters,
    plant,
    small_thing,
    stairs,
    statue,
    table,
)
from vggt3.data.procedural.materials import hsv, varied
from vggt3.data.procedural.recipes import (
    FACADES,
    FURNITURE,
    GROUNDS,
    Recipe,
    foliage,
    metal,
    plaster,
    wood,
)
from vggt3.data.procedural.scene import BALL, BOX, CYLINDER, SHELL

FAR_M = 150.0
"""Half the side of the world."""
GROUND_M = 45.0
"""Half the side of the ground: a depth without end would rule every mean."""
STONE: tuple[tuple[float, Recipe], ...] = ((3, plaster), *FACADES)
Piece = Callable[[Builder, Spot], None]


def yard(builder: Builder) -> None:
    """Draw a yard into ``builder``."""
    draw = builder.draw
    ground = builder.material(GROUNDS)
    everywhere = (FAR_M, FAR_M, FAR_M)
    builder.add(SHELL, Solid((0, 0, 0), everywhere, yaw_rotation(0), (ground,) * 4))
    slab = (GROUND_M, GROUND_M, 0.5)
    builder.add(BOX, Solid((0, 0, -0.5), slab, yaw_rotation(draw.angle()), (ground,) * 4))
    half_x, half_y = draw.log_uniform(2.5, 7), draw.log_uniform(2.5, 7)
    builder.region = (-half_x, half_x, -half_y, half_y)
    builder.heights = (0.6, draw.choice((1.9, 2.2, 3.5)))
    for side in draw.shuffled(range(4))[: draw.integer(1, 3)]:
        beyond = draw.uniform(0.3, 2.5)
        turn = -side * math.pi / 2
        away = (half_y if side % 2 == 0 else half_x) + beyond
        middle = Spot(0, 0, 0, turn).moved(draw.normal(1.5), away, 0, draw.normal(0.12))
        _facade(builder, middle)
    _paths(builder, half_x, half_y)
    _things(builder, half_x, half_y)
    _far_things(builder, max(half_x, half_y))
    _daylight(builder)


def _facade(builder: Builder, spot: Spot) -> None:
    """A building's front at y = 0 of the spot, its body behind, details before it."""
    draw = builder.draw
    half_x, high = draw.uniform(2.5, 9), draw.uniform(2.6, 10)
    deep = draw.uniform(0.15, 4)
    wall = builder.material(FACADES)
    side = wall if draw.chance(0.6) else builder.material(FACADES)
    body = Solid(
        spot.point(0, deep / 2, high / 2), (half_x, deep / 2, high / 2),
        yaw_rotation(spot.yaw), (side, wall, side, side),
    )  # fmt: skip
    builder.add(BOX, body)
    trim = builder.material(STONE)
    for _ in range(draw.integer(0, 2)):
        z = draw.choice((high, high * draw.uniform(0.2, 0.9), 0.2))
        bar = (half_x * 1.01, draw.uniform(0.05, 0.2), draw.uniform(0.04, 0.2))
        builder.part(BOX, spot, (0, 0, z), bar, trim)
    style = draw.weighted((3, 2, 2))
    if style == 0:
        _windows(builder, spot, half_x, high, trim)
    elif style == 1:
        _columns(builder, spot, half_x, high, trim)
    elif builder.room_for(12):
        pilasters(builder, spot.moved(draw.uniform(-0.5, 0.5) * half_x, 0, draw.uniform(0, 1)))
    if draw.chance(0.6) and builder.room_for(8):
        entrance = spot.moved(draw.uniform(-0.6, 0.6) * half_x, 0, 0)
        door(builder, entrance)
        builder.points.append(entrance.point(0, 0, 1.1))
        if draw.chance(0.4):
            steps = (0.9, 0.5, draw.uniform(0.06, 0.15))
            builder.part(BOX, entrance, (0, -0.3, steps[2]), steps, trim)
    for _ in range(2):
        builder.points.append(
            spot.point(draw.uniform(-0.6, 0.6) * half_x, 0, draw.uniform(0.5, min(high, 3)))
        )


def _windows(builder: Builder, spot: Spot, half_x: float, high: float, trim: int) -> None:
    """Rows of framed panes, equal ones: where one window looks like the next."""
    draw = builder.draw
    columns, rows = draw.integer(2, 4), draw.integer(1, max(1, min(3, int(high / 2.6))))
    pane = builder.material([(1.0, metal)])
    half = (draw.uniform(0.35, 0.7), draw.uniform(0.02, 0.06), draw.uniform(0.45, 0.8))
    bars = draw.chance(0.5)
    for row in range(rows):
        for column in range(columns):
            if not builder.room_for(8):
                return
            x = half_x * (2 * (column + 0.5) / columns - 1)
            z = 1.4 + row * (high - 1.4) / rows
            frame = (half[0] + 0.08, half[1], half[2] + 0.08)
            builder.part(BOX, spot, (x, 0, z), frame, trim)
            builder.part(BOX, spot, (x, -0.015, z), half, pane)
            if bars:
                builder.part(BOX, spot, (x, -0.03, z), (0.025, half[1], half[2]), trim)
            sill = (half[0] + 0.15, half[1] + 0.08, 0.035)
            builder.part(BOX, spot, (x, 0, z - half[2] - 0.1), sill, trim)


def _columns(builder: Builder, spot: Spot, half_x: float, high: float, trim: int) -> None:
    """A row of columns with bases and a beam, before the front."""
    draw = builder.draw
    count, radius = draw.integer(2, 5), draw.uniform(0.12, 0.3)
    tall = min(high, draw.uniform(2.2, 4.5))
    ahead = -draw.uniform(0.1, 1.0)
    for n in range(count):
        x = half_x * 0.9 * (2 * (n + 0.5) / count - 1)
        builder.part(CYLINDER, spot, (x, ahead, tall / 2), (radius, radius, tall / 2), trim)
        for z in (0.1, tall - 0.1):
            block = (radius * 1.3, radius * 1.3, 0.1)
            builder.part(BOX, spot, (x, ahead, z), block, trim)
    beam = (half_x, radius * 1.4 + abs(ahead) / 2, 0.2)
    builder.part(BOX, spot, (0, ahead / 2, tall + 0.2), beam, trim)


def _paths(builder: Builder, half_x: float, half_y: float) -> None:
    """Slabs and steps in the ground, so that it is not one plane of one texture."""
    draw = builder.draw
    for _ in range(draw.integer(0, 3)):
        place = Spot(
            draw.uniform(-1, 1) * half_x, draw.uniform(-1, 1) * half_y, 0,
            draw.choice((0.0, 0.0, draw.angle())),
        )  # fmt: skip
        half = (draw.uniform(0.5, 4), draw.uniform(0.4, 3), draw.choice((0.01, 0.04, 0.15)))
        builder.part(BOX, place, (0, 0, 0), half, builder.material(GROUNDS))


def tree(builder: Builder, spot: Spot) -> None:
    """A trunk and a crown of ellipsoids."""
    draw = builder.draw
    high, thick = draw.uniform(1.2, 4.0), draw.uniform(0.05, 0.22)
    bark, green = builder.material([(1.0, wood)]), builder.material([(1.0, foliage)])
    builder.part(CYLINDER, spot, (0, 0, high / 2), (thick, thick, high / 2), bark)
    for _ in range(draw.integer(2, 4)):
        size = draw.uniform(0.3, 0.5) * high
        place = (draw.normal(0.25 * size), draw.normal(0.25 * size), high + draw.normal(0.3))
        half = (size, size * draw.uniform(0.6, 1), size * draw.uniform(0.5, 1))
        solid = Solid(spot.point(*place), half, any_rotation(draw), (green,) * 4)
        builder.add(BALL, solid)
    builder.points.append(spot.point(0, 0, min(high * 0.7, 2)))


def hedge(builder: Builder, spot: Spot) -> None:
    """A hedge or a low wall with a cap."""
    draw = builder.draw
    green = draw.chance(0.4)
    material = builder.material([(1.0, foliage)] if green else STONE)
    half = (draw.uniform(0.6, 3), draw.uniform(0.1, 0.35), draw.uniform(0.15, 0.7))
    builder.part(BOX, spot, (0, 0, half[2]), half, material)
    if not green:
        cap = (half[0] + 0.04, half[1] + 0.05, 0.04)
        builder.part(BOX, spot, (0, 0, 2 * half[2]), cap, builder.material(STONE))
        if draw.chance(0.5):
            small_thing(builder, spot.moved(half[0] * draw.uniform(-1, 1), 0, 2 * half[2]), 0.4)
    builder.points.append(spot.point(0, 0, half[2]))


def rocks(builder: Builder, spot: Spot) -> None:
    """Boulders half in the ground."""
    draw = builder.draw
    material = builder.material(STONE)
    for _ in range(draw.integer(1, 4)):
        size = draw.log_uniform(0.15, 0.8)
        half = (size, size * draw.uniform(0.5, 1), size * draw.uniform(0.4, 0.9))
        place = spot.point(draw.normal(0.6), draw.normal(0.6), size * 0.2)
        builder.add(BALL, Solid(place, half, any_rotation(draw), (material,) * 4))
    builder.points.append(spot.point(0, 0, 0.3))


def car(builder: Builder, spot: Spot) -> None:
    """Two boxes on four wheels, panes around the upper one."""
    draw = builder.draw
    body, tyre = builder.material([(1.0, metal)]), builder.material(FURNITURE)
    glass = builder.material([(1.0, metal)])
    half_x, half_y = draw.uniform(1.5, 2.2), draw.uniform(0.7, 0.95)
    builder.part(BOX, spot, (0, 0, 0.6), (half_x, half_y, 0.3), body)
    cabin = (half_x * draw.uniform(0.4, 0.7), half_y * 0.9, 0.28)
    builder.part(BOX, spot, (draw.uniform(-0.3, 0.3), 0, 1.15), cabin, glass, top=body)
    for x in (-0.6 * half_x, 0.6 * half_x):
        for y in (-half_y, half_y):
            wheel = Solid(
                spot.point(x, y, 0.32), (0.32, 0.32, 0.1),
                _lying(spot.yaw), (tyre,) * 4,
            )  # fmt: skip
            builder.add(CYLINDER, wheel)
    builder.points.append(spot.point(0, 0, 0.8))


def _lying(yaw: float) -> Rotation:
    cos, sin = math.cos(yaw), math.sin(yaw)
    return (cos, 0.0, -sin), (sin, 0.0, cos), (0.0, -1.0, 0.0)


PIECES: tuple[tuple[float, Piece], ...] = (
    (3, tree), (3, hedge), (2, rocks), (1, car), (1.5, statue), (2, heap), (1, plant),
    (1, table), (1, chairs_around), (1, stairs), (1, ladder),
)  # fmt: skip


def _things(builder: Builder, half_x: float, half_y: float) -> None:
    draw = builder.draw
    low, high = builder.config.furniture
    taken: list[tuple[float, float]] = []
    for _ in range(draw.integer(low, high)):
        if not builder.room_for(8):
            return
        for _ in range(6):
            x, y = draw.uniform(-1.1, 1.1) * half_x, draw.uniform(-1.1, 1.1) * half_y
            if all(math.hypot(x - a, y - b) > 1.5 for a, b in taken):
                chosen = draw.weighted([weight for weight, _ in PIECES])
                PIECES[chosen][1](builder, Spot(x, y, 0, draw.angle()))
                taken.append((x, y))
                break


def _far_things(builder: Builder, reach: float) -> None:
    """Hills, blocks and trees in the distance."""
    draw = builder.draw
    for _ in range(draw.integer(0, 6)):
        turn, far = draw.angle(), min(GROUND_M * 0.9, reach * draw.uniform(2.5, 8))
        place = Spot(far * math.cos(turn), far * math.sin(turn), 0, draw.angle())
        style = draw.weighted((2, 2, 1))
        if style == 0:
            half = (draw.uniform(2, 8), draw.uniform(2, 8), draw.uniform(1.5, 7))
            builder.part(BOX, place, (0, 0, half[2]), half, builder.material(FACADES))
        elif style == 1:
            half = (draw.uniform(4, 14), draw.uniform(4, 14), draw.uniform(1, 5))
            builder.part(BALL, place, (0, 0, 0), half, builder.material(GROUNDS))
        else:
            tree(builder, place)


def _daylight(builder: Builder) -> None:
    draw = builder.draw
    rise, turn = draw.uniform(0.25, 1.3), draw.angle()
    far = 90.0
    sun = (
        far * math.cos(rise) * math.cos(turn), far * math.cos(rise) * math.sin(turn),
        far * math.sin(rise),
    )  # fmt: skip
    cloudy = draw.chance(0.3)
    warm = hsv(0.1, 0.35 * max(0.0, 1 - rise), 1.0)
    strength = draw.uniform(0.05, 0.3) if cloudy else draw.uniform(0.7, 1.3)
    colour = (warm[0] * strength, warm[1] * strength, warm[2] * strength)
    builder.light(Light(sun, colour, far, far * draw.uniform(0.003, 0.02)))
    blue = hsv(draw.uniform(0.54, 0.62), draw.uniform(0.05, 0.2 if cloudy else 0.45), 1.0)
    soft = draw.uniform(0.5, 0.8) if cloudy else draw.uniform(0.2, 0.45)
    ground = varied(draw, (0.5, 0.45, 0.38), 0.2)
    builder.ambient = [*(c * soft for c in blue), *(c * soft * 0.7 for c in ground)]
    zenith = hsv(draw.uniform(0.55, 0.63), draw.uniform(0.1, 0.7), draw.uniform(0.6, 0.95))
    horizon = hsv(draw.uniform(0.05, 0.6), draw.uniform(0.0, 0.25), draw.uniform(0.8, 1.0))
    clouds = draw.uniform(0.5, 1.0) if cloudy else draw.uniform(0.0, 0.6)
    builder.sky = [1.0, *zenith, *horizon, clouds]
