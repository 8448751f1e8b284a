"""Rooms: a box seen from inside, often with an alcove, a second room or a recess, furnished."""

from __future__ import annotations

import math

from vggt3.data.procedural.build import (
    Builder,
    Light,
    Point,
    Solid,
    Spot,
    any_rotation,
    yaw_rotation,
)
from vggt3.data.procedural.furniture import (
    AGAINST_WALL,
    FREE,
    ON_WALL,
    any_piece,
    door,
)
from vggt3.data.procedural.materials import hsv, varied
from vggt3.data.procedural.recipes import FLOORS, FURNITURE, SMALL, WALLS, outlook, paint
from vggt3.data.procedural.scene import BALL, BOX, CYLINDER, SHELL

Walls = tuple[float, float, float]
"""Half width (x), half depth (y) and height of a room whose floor's centre is the origin."""


def room(builder: Builder) -> None:
    """Draw a furnished room into ``builder``."""
    walls = _shell(builder)
    _fittings(builder, walls)
    _furnish(builder, walls)
    _lights(builder, walls)


def heap_of_solids(builder: Builder) -> None:
    """Solids of all kinds and sizes in mid-air in a bare room."""
    draw = builder.draw
    walls = _shell(builder)
    half_x, half_y, high = walls
    for _ in range(draw.integer(12, 50)):
        size = draw.log_uniform(0.05, 0.7)
        half = (
            size * draw.log_uniform(0.15, 1), size * draw.log_uniform(0.15, 1), size,
        )  # fmt: skip
        place = (
            draw.uniform(-1, 1) * half_x, draw.uniform(-1, 1) * half_y,
            draw.uniform(0, 0.9) * high,
        )  # fmt: skip
        material = builder.material(SMALL)
        rotation = any_rotation(draw) if draw.chance(0.7) else yaw_rotation(draw.angle())
        faces = (material, material, builder.material(SMALL), material)
        builder.add(draw.choice((BOX, BOX, BALL, CYLINDER)), Solid(place, half, rotation, faces))
        builder.points.append(place)
    _lights(builder, walls)


def _shell(builder: Builder) -> Walls:
    draw = builder.draw
    half_x, half_y = draw.log_uniform(1.4, 4.5), draw.log_uniform(1.4, 4.5)
    high = draw.uniform(2.2, 3.4)
    wall, floor = builder.material(WALLS), builder.material(FLOORS)
    accent = builder.material(WALLS) if draw.chance(0.4) else wall
    ceiling = builder.material(paint(draw)) if draw.chance(0.85) else builder.material(WALLS)
    faces = (wall, accent, ceiling, floor)
    level = yaw_rotation(0.0)
    builder.add(SHELL, Solid((0, 0, high / 2), (half_x, half_y, high / 2), level, faces))
    if draw.chance(0.5):
        _second_room(builder, (half_x, half_y, high), faces)
    if draw.chance(0.5):
        _recess(builder, (half_x, half_y, high))
    margin = 0.3
    builder.region = (-half_x + margin, half_x - margin, -half_y + margin, half_y - margin)
    builder.heights = (0.4, min(2.2, high - 0.25))
    for _ in range(3):
        spot = _at_wall(draw.unit(), (half_x, half_y, high), 0.7)
        builder.points.append(spot.point(0, 0, draw.uniform(0.6, 1.9)))
    return half_x, half_y, high


def _second_room(builder: Builder, walls: Walls, faces: tuple[int, int, int, int]) -> None:
    """A space that opens off one wall: an alcove, a corridor, the other arm of an L."""
    draw = builder.draw
    half_x, half_y, high = walls
    wide = draw.uniform(0.4, 0.9 * half_y)
    deep = draw.uniform(0.5, 3.5)
    tall = draw.choice((high, min(high, 2.1), draw.uniform(1.9, high)))
    y = draw.uniform(-1, 1) * (half_y - wide)
    side = draw.choice((-1, 1))
    own = faces if draw.chance(0.6) else (
        builder.material(WALLS), builder.material(WALLS), faces[2], faces[3],
    )  # fmt: skip
    centre = (side * (half_x + deep / 2 - 0.1), y, tall / 2)
    half = (deep / 2 + 0.1, wide, tall / 2)
    builder.add(SHELL, Solid(centre, half, yaw_rotation(0.0), own))
    builder.points.append((side * half_x, y, draw.uniform(0.8, 1.6)))


def _recess(builder: Builder, walls: Walls) -> None:
    """A window or niche in a wall of the y sides."""
    draw = builder.draw
    half_x, half_y, high = walls
    wide, tall = draw.uniform(0.3, min(1.3, 0.8 * half_x)), draw.uniform(0.3, 0.45 * high)
    x = draw.uniform(-1, 1) * (half_x - wide)
    z = draw.uniform(tall + 0.05, high - tall - 0.05)
    deep, side = draw.uniform(0.08, 0.4), draw.choice((-1, 1))
    back = builder.material(outlook(draw)) if draw.chance(0.7) else builder.material(WALLS)
    centre = (x, side * (half_y + deep / 2 - 0.05), z)
    half = (wide, deep / 2 + 0.05, tall)
    frame = builder.material(FURNITURE)
    builder.add(SHELL, Solid(centre, half, yaw_rotation(0.0), (frame, back, frame, frame)))
    end = Spot(x, side * (half_y + deep - 0.03), z, 0.0)
    if draw.chance(0.7):
        bar = 0.02
        for n in range(draw.integer(0, 3)):
            share = wide * (2 * (n + 1) / 4 - 1)
            builder.part(BOX, end, (share, 0, 0), (bar, bar, tall), frame)
        builder.part(BOX, end, (0, 0, 0), (wide, bar, bar), frame)
    builder.points.append((x, side * half_y, z))
    if draw.chance(0.5):
        _sun(builder, end)


def _sun(builder: Builder, window: Spot) -> None:
    """Sunlight that falls in through the window: the shell that was added last."""
    draw = builder.draw
    far, rise = 60.0, draw.uniform(0.25, 0.9)
    away = math.copysign(1.0, window.y)
    turn = draw.uniform(-0.9, 0.9)
    position = (
        window.x + far * math.cos(rise) * math.sin(turn),
        window.y + far * math.cos(rise) * math.cos(turn) * away,
        window.z + far * math.sin(rise),
    )
    warm = hsv(draw.uniform(0.07, 0.13), draw.uniform(0.1, 0.35), 1.0)
    colour = _times(warm, draw.uniform(1.0, 3.0))
    slot = len(builder.solids[SHELL]) - 1
    builder.light(Light(position, colour, far, far * 0.006, True, slot))


def _at_wall(turn: float, walls: Walls, share: float) -> Spot:
    """A spot on one of the four walls whose +y axis goes into the wall."""
    half_x, half_y, _ = walls
    side = int(turn * 4)
    along = (turn * 4 - side) * 2 - 1
    x, y, yaw = (
        (along * half_x * share, half_y, 0.0),
        (half_x, along * half_y * share, -math.pi / 2),
        (along * half_x * share, -half_y, math.pi),
        (-half_x, along * half_y * share, math.pi / 2),
    )[side]
    return Spot(x, y, 0.0, yaw)


def _fittings(builder: Builder, walls: Walls) -> None:
    """Skirting, beams, doors, pictures, reliefs."""
    draw = builder.draw
    half_x, half_y, high = walls
    if draw.chance(0.4):
        material, tall = builder.material(FURNITURE), draw.uniform(0.03, 0.1)
        z = draw.choice((tall, tall, high - tall))
        for side in (-1, 1):
            centre = Spot(0, side * half_y, z, 0.0)
            builder.part(BOX, centre, (0, 0, 0), (half_x, 0.015, tall), material)
            centre = Spot(side * half_x, 0, z, 0.0)
            builder.part(BOX, centre, (0, 0, 0), (0.015, half_y, tall), material)
    if draw.chance(0.2):
        material, count = builder.material(FURNITURE), draw.integer(2, 4)
        for n in range(count):
            x = half_x * (2 * (n + 0.5) / count - 1)
            beam = (0.08, half_y, 0.09)
            builder.part(BOX, Spot(x, 0, high - 0.09, 0.0), (0, 0, 0), beam, material)
    if draw.chance(0.25):
        material = builder.material(WALLS)
        x, y = draw.uniform(-0.6, 0.6) * half_x, draw.uniform(-0.6, 0.6) * half_y
        kind, wide = draw.choice((BOX, CYLINDER)), draw.uniform(0.08, 0.25)
        centre = Spot(x, y, high / 2, draw.angle())
        builder.part(kind, centre, (0, 0, 0), (wide, wide, high / 2), material)
    if draw.chance(0.6):
        door(builder, _at_wall(draw.unit(), walls, 0.7))
    for _ in range(draw.integer(1, 5)):
        spot = _at_wall(draw.unit(), walls, 0.8)
        any_piece(builder, spot.moved(0, 0, draw.uniform(1.0, high - 0.7)), ON_WALL)


def _furnish(builder: Builder, walls: Walls) -> None:
    """Pieces against the walls and in the room, seldom through each other."""
    draw = builder.draw
    half_x, half_y, _ = walls
    taken: list[tuple[float, float]] = []

    def free(spot: Spot, apart: float) -> bool:
        return all(math.hypot(spot.x - x, spot.y - y) > apart for x, y in taken)

    low, high = builder.config.furniture
    for number in range(draw.integer(low, high)):
        if not builder.room_for(10):
            return
        wall = number % 2 == 0
        for _ in range(6):
            if wall:
                spot = _at_wall(draw.unit(), walls, 0.8)
            else:
                spot = Spot(
                    draw.uniform(-1, 1) * (half_x - 0.5), draw.uniform(-1, 1) * (half_y - 0.5),
                    0.0, draw.angle() if draw.chance(0.5) else 0.0,
                )  # fmt: skip
            if free(spot, 1.0):
                any_piece(builder, spot, AGAINST_WALL if wall else FREE)
                taken.append((spot.x, spot.y))
                break


def _lights(builder: Builder, walls: Walls) -> None:
    """A main light with shadows, a second one, and soft light from everywhere."""
    draw = builder.draw
    half_x, half_y, high = walls
    warmth = hsv(draw.choice((0.09, 0.12, 0.58)), draw.uniform(0.0, 0.3), 1.0)
    sideways = draw.chance(0.5)
    share = 0.9 if sideways else 0.5
    position: Point = (
        draw.uniform(-share, share) * half_x, draw.uniform(-share, share) * half_y,
        draw.uniform(0.5, 0.93) * high if sideways else 0.95 * high,
    )  # fmt: skip
    strength = draw.uniform(0.5, 1.1)
    reach = draw.uniform(1.2, 4.0)
    builder.light(Light(position, _times(warmth, strength), reach, draw.uniform(0.02, 0.12)))
    second: Point = (
        draw.uniform(-0.8, 0.8) * half_x, draw.uniform(-0.8, 0.8) * half_y, 0.9 * high,
    )  # fmt: skip
    cool = varied(draw, (0.8, 0.8, 0.8), 0.15)
    if draw.chance(0.7):
        colour = _times(cool, draw.uniform(0.1, 0.5))
        builder.light(Light(second, colour, reach, 0.05, draw.chance(0.5)))
    soft = draw.uniform(0.12, 0.45)
    above, below = _times(cool, soft), _times(warmth, soft * draw.uniform(0.4, 0.9))
    builder.ambient = [*above, *below]


def _times(colour: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
