"""Pieces of furniture, each a few solids in the axes of its spot (x right, y back, z up).

A piece against a wall stands at y ≤ 0 with the wall at y = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from vggt3.data.procedural.build import Builder, Point, Solid, Spot, any_rotation
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.recipes import (
    FURNITURE,
    PICTURES,
    SMALL,
    SOFT,
    Recipe,
    books,
    fabric,
    foliage,
    glowing,
)
from vggt3.data.procedural.scene import BALL, BOX, CYLINDER

Piece = Callable[[Builder, Spot], None]


def _one(builder: Builder, recipe: Recipe) -> int:
    return builder.material([(1.0, recipe)])


def _any_size(draw: Draw, low: float, high: float) -> Point:
    return draw.uniform(low, high), draw.uniform(low, high), draw.uniform(low, high)


def small_thing(builder: Builder, spot: Spot, size: float) -> None:
    """A box, bottle, ball, bowl or stack of about ``size`` metres, standing on the spot."""
    draw = builder.draw
    material = builder.material(SMALL)
    builder.points.append(spot.point(0, 0, size / 2))
    style = draw.weighted((4, 3, 2, 1.5))
    if style == 0:
        high = size * draw.uniform(0.3, 1)
        half = (size * draw.uniform(0.25, 0.5), size * draw.uniform(0.1, 0.5), high / 2)
        builder.part(BOX, spot, (0, 0, high / 2), half, material)
        if draw.chance(0.35):
            top = spot.moved(0, 0, high, draw.angle())
            tall = high * draw.uniform(0.2, 0.8)
            half = (half[0] * 0.8, half[1] * 0.8, tall / 2)
            builder.part(BOX, top, (0, 0, tall / 2), half, builder.material(SMALL))
    elif style == 1:
        radius = size * draw.uniform(0.12, 0.35)
        builder.part(CYLINDER, spot, (0, 0, size / 2), (radius, radius, size / 2), material)
        if draw.chance(0.4):
            neck = (radius * 0.4, radius * 0.4, size * 0.15)
            builder.part(CYLINDER, spot, (0, 0, size * 1.15), neck, material)
    elif style == 2:
        radius = size * draw.uniform(0.25, 0.5)
        half = (radius, radius * draw.uniform(0.7, 1), radius * draw.uniform(0.6, 1))
        builder.part(BALL, spot, (0, 0, half[2]), half, material)
    else:
        half = _any_size(draw, 0.08 * size, 0.5 * size)
        place = spot.point(0, 0, max(half) * 0.8)
        solid = Solid(place, half, any_rotation(draw), (material,) * 4)
        builder.add(draw.choice((BOX, BALL, CYLINDER)), solid)


def _scatter(builder: Builder, spot: Spot, half_x: float, half_y: float, most: int) -> None:
    """Small things on a top whose centre is the spot."""
    draw = builder.draw
    for _ in range(draw.integer(0, most)):
        place = spot.moved(
            draw.uniform(-half_x, half_x), draw.uniform(-half_y, half_y), 0, draw.angle()
        )
        small_thing(builder, place, draw.log_uniform(0.07, 0.35))


def table(builder: Builder, spot: Spot) -> None:
    """A table with four legs or one foot, things on it."""
    draw = builder.draw
    half_x, half_y = draw.uniform(0.35, 1.0), draw.uniform(0.3, 0.55)
    high, thick = draw.uniform(0.4, 0.95), draw.uniform(0.015, 0.04)
    material = builder.material(FURNITURE)
    round_top = draw.chance(0.3)
    top_z = high - thick
    if round_top:
        half_x = half_y
        builder.part(CYLINDER, spot, (0, 0, top_z), (half_x, half_y, thick), material)
    else:
        builder.part(BOX, spot, (0, 0, top_z), (half_x, half_y, thick), material)
    leg = draw.uniform(0.02, 0.05)
    if round_top or draw.chance(0.2):
        half = (leg * 1.5, leg * 1.5, high / 2 - thick)
        builder.part(CYLINDER, spot, (0, 0, high / 2 - thick), half, material)
        foot = (half_x * 0.5, half_y * 0.5, 0.02)
        builder.part(CYLINDER if round_top else BOX, spot, (0, 0, 0.02), foot, material)
    else:
        for x in (-half_x + leg, half_x - leg):
            for y in (-half_y + leg, half_y - leg):
                half = (leg, leg, high / 2 - thick)
                builder.part(BOX, spot, (x, y, high / 2 - thick), half, material)
    builder.points.append(spot.point(0, 0, high))
    _scatter(builder, spot.moved(0, 0, high), half_x * 0.7, half_y * 0.7, 5)


def chair(builder: Builder, spot: Spot, wood: int = -1, cloth: int = -1) -> None:
    """A chair or stool; ``wood`` and ``cloth`` are materials if it belongs to a set."""
    draw = builder.draw
    material = builder.material(FURNITURE) if wood < 0 else wood
    half, seat = draw.uniform(0.18, 0.25), draw.uniform(0.4, 0.6)
    cushion = material if cloth < 0 and draw.chance(0.5) else cloth
    cushion = builder.material(SOFT) if cushion < 0 else cushion
    builder.part(BOX, spot, (0, 0, seat), (half, half, 0.03), cushion)
    leg = draw.uniform(0.012, 0.03)
    for x in (-half + leg, half - leg):
        for y in (-half + leg, half - leg):
            builder.part(BOX, spot, (x, y, seat / 2), (leg, leg, seat / 2), material)
    if draw.chance(0.75):
        back = draw.uniform(0.18, 0.35)
        place = (0.0, half - 0.02, seat + back)
        builder.part(BOX, spot, place, (half, 0.015, back), cushion)
    builder.points.append(spot.point(0, 0, seat))


def shelf(builder: Builder, spot: Spot) -> None:
    """A bookcase, open or backed, with rows of books and things."""
    draw = builder.draw
    half_x, half_y = draw.uniform(0.3, 0.8), draw.uniform(0.12, 0.25)
    high, boards = draw.uniform(0.7, 2.2), draw.integer(3, 6)
    material = builder.material(FURNITURE)
    centre_y = -half_y - 0.01
    for x in (-half_x, half_x):
        builder.part(BOX, spot, (x, centre_y, high / 2), (0.015, half_y, high / 2), material)
    if draw.chance(0.7):
        builder.part(BOX, spot, (0, -0.015, high / 2), (half_x, 0.008, high / 2), material)
    for board in range(boards):
        z = (high - 0.02) * (board + 0.02) / (boards - 1)
        z = min(z, high - 0.015)
        builder.part(BOX, spot, (0, centre_y, z), (half_x, half_y, 0.012), material)
        gap = high / (boards - 1)
        if board < boards - 1 and draw.chance(0.75):
            row = builder.material(SMALL) if draw.chance(0.25) else _one(builder, books)
            wide = half_x * draw.uniform(0.3, 0.92)
            tall = gap * draw.uniform(0.25, 0.42)
            x = draw.uniform(-1, 1) * (half_x - wide - 0.02)
            deep = half_y * draw.uniform(0.5, 0.85)
            builder.part(BOX, spot, (x, centre_y, z + 0.012 + tall), (wide, deep, tall), row)
    builder.points.append(spot.point(0, centre_y, high * draw.uniform(0.4, 0.8)))


def cabinet(builder: Builder, spot: Spot) -> None:
    """A wardrobe, chest or appliance: a box with doors and knobs, things on top."""
    draw = builder.draw
    half_x, half_y = draw.uniform(0.25, 0.9), draw.uniform(0.2, 0.33)
    high = draw.choice((draw.uniform(0.45, 0.95), draw.uniform(1.2, 2.1)))
    material = builder.material(FURNITURE)
    centre = (0.0, -half_y - 0.01, high / 2)
    builder.part(BOX, spot, centre, (half_x, half_y, high / 2), material)
    front = builder.material(FURNITURE) if draw.chance(0.5) else material
    doors = draw.integer(1, 3)
    for door in range(doors):
        wide = half_x / doors
        x = -half_x + wide * (2 * door + 1)
        half = (wide - 0.02, 0.01, high / 2 - 0.04)
        builder.part(BOX, spot, (x, -2 * half_y - 0.02, high / 2), half, front)
        knob = (x + wide * 0.6, -2 * half_y - 0.045, high * 0.55)
        builder.part(BALL, spot, knob, (0.02, 0.02, 0.02), material)
    builder.points.append(spot.point(0, -2 * half_y, high * 0.6))
    if high < 1.3:
        _scatter(builder, spot.moved(0, -half_y, high), half_x * 0.8, half_y * 0.6, 5)


def sofa(builder: Builder, spot: Spot) -> None:
    """A sofa or armchair with cushions."""
    draw = builder.draw
    half_x, half_y = draw.uniform(0.35, 1.1), draw.uniform(0.35, 0.48)
    seat = draw.uniform(0.3, 0.45)
    material = builder.material(SOFT)
    builder.part(BOX, spot, (0, -half_y, seat / 2), (half_x, half_y, seat / 2), material)
    back = draw.uniform(0.2, 0.35)
    builder.part(BOX, spot, (0, -0.09, seat + back), (half_x, 0.09, back), material)
    for x in (-half_x - 0.07, half_x + 0.07):
        half = (0.09, half_y, seat / 2 + 0.1)
        builder.part(BOX, spot, (x, -half_y, seat / 2 + 0.1), half, material)
    for _ in range(draw.integer(0, 3)):
        cushion = builder.material(SOFT)
        x = draw.uniform(-1, 1) * (half_x - 0.2)
        solid = Solid(
            spot.point(x, -0.28, seat + 0.17), (0.19, 0.08, 0.18),
            any_rotation(draw), (cushion,) * 4,
        )  # fmt: skip
        builder.add(BALL if draw.chance(0.7) else BOX, solid)
    builder.points.append(spot.point(0, -half_y, seat + 0.1))


def bed(builder: Builder, spot: Spot) -> None:
    """A bed with a head board and pillows."""
    draw = builder.draw
    half_x, half_y = draw.uniform(0.45, 0.9), draw.uniform(0.95, 1.05)
    high = draw.uniform(0.35, 0.6)
    frame, cover = builder.material(FURNITURE), builder.material(SOFT)
    builder.part(BOX, spot, (0, -half_y, 0.15), (half_x, half_y, 0.12), frame)
    inner = (half_x - 0.02, half_y - 0.02, high / 2 - 0.1)
    builder.part(BOX, spot, (0, -half_y, high / 2 + 0.1), inner, cover)
    head = draw.uniform(0.4, 0.6)
    builder.part(BOX, spot, (0, -0.03, head), (half_x + 0.03, 0.03, head), frame)
    pillow = _one(builder, fabric)
    for side in (-1, 1):
        place = (side * half_x / 2, -0.35, high + 0.07)
        builder.part(BALL, spot, place, (half_x * 0.42, 0.22, 0.09), pillow)
    builder.points.append(spot.point(0, -half_y, high))


def lamp(builder: Builder, spot: Spot) -> None:
    """A floor lamp: thin pole, glowing shade."""
    draw = builder.draw
    high, shade = draw.uniform(1.2, 1.8), _one(builder, glowing)
    metal = builder.material(FURNITURE)
    builder.part(CYLINDER, spot, (0, 0, high / 2), (0.013, 0.013, high / 2), metal)
    builder.part(CYLINDER, spot, (0, 0, 0.015), (0.15, 0.15, 0.015), metal)
    radius = draw.uniform(0.12, 0.25)
    half = (radius, radius, radius * draw.uniform(0.5, 1))
    builder.part(draw.choice((BALL, CYLINDER)), spot, (0, 0, high), half, shade)
    builder.points.append(spot.point(0, 0, high * 0.8))


def plant(builder: Builder, spot: Spot) -> None:
    """A pot with a stem and bushes, or with long leaves."""
    draw = builder.draw
    pot, green = builder.material(SMALL), _one(builder, foliage)
    radius, tall = draw.uniform(0.1, 0.25), draw.uniform(0.12, 0.25)
    builder.part(CYLINDER, spot, (0, 0, tall), (radius, radius, tall), pot)
    high = draw.uniform(0.4, 1.4)
    builder.part(CYLINDER, spot, (0, 0, tall + high / 2), (0.02, 0.02, high / 2), pot)
    for _ in range(draw.integer(2, 5)):
        leaf = draw.uniform(0.1, 0.35)
        place = (
            draw.uniform(-0.25, 0.25), draw.uniform(-0.25, 0.25),
            2 * tall + draw.uniform(0.3, 1) * high,
        )  # fmt: skip
        half = (leaf, leaf * draw.uniform(0.2, 0.8), leaf * draw.uniform(0.3, 0.9))
        solid = Solid(spot.point(*place), half, any_rotation(draw), (green,) * 4)
        builder.add(BALL if draw.chance(0.7) else BOX, solid)
    builder.points.append(spot.point(0, 0, 2 * tall + high / 2))


def rug(builder: Builder, spot: Spot) -> None:
    """A rug on the floor."""
    draw = builder.draw
    half = (draw.uniform(0.6, 1.6), draw.uniform(0.4, 1.2), 0.006)
    builder.part(BOX, spot, (0, 0, 0.006), half, builder.material(SOFT))


def heap(builder: Builder, spot: Spot) -> None:
    """Boxes piled up, or things lying about on the floor."""
    draw = builder.draw
    if draw.chance(0.5):
        z = 0.0
        for _ in range(draw.integer(2, 5)):
            half = _any_size(draw, 0.08, 0.3)
            place = (draw.uniform(-0.08, 0.08), draw.uniform(-0.08, 0.08), z + half[2])
            turned = spot.moved(0, 0, 0, draw.normal(0.3))
            builder.part(BOX, turned, place, half, builder.material(SMALL))
            z += 2 * half[2]
        builder.points.append(spot.point(0, 0, z / 2))
        return
    for _ in range(draw.integer(3, 7)):
        beside = spot.moved(draw.normal(0.4), draw.normal(0.4), 0, draw.angle())
        small_thing(builder, beside, draw.log_uniform(0.1, 0.5))


def stairs(builder: Builder, spot: Spot) -> None:
    """A flight of steps, or a plinth of steps with a figure on top."""
    draw = builder.draw
    count, wide = draw.integer(3, 7), draw.uniform(0.4, 0.9)
    rise, tread = draw.uniform(0.12, 0.2), draw.uniform(0.2, 0.32)
    material = builder.material(FURNITURE)
    for step in range(count):
        z, y = rise * (step + 1) / 2, -tread * (count - step) / 2
        half = (wide, tread * (count - step) / 2, z)
        builder.part(BOX, spot, (0, y, z), half, material)
    builder.points.append(spot.point(0, -tread * count / 2, rise * count))


def statue(builder: Builder, spot: Spot) -> None:
    """A plinth with balls and cylinders on it."""
    draw = builder.draw
    plinth = draw.uniform(0.3, 1.0)
    half = draw.uniform(0.15, 0.35)
    builder.part(BOX, spot, (0, 0, plinth / 2), (half, half, plinth / 2), builder.material(SMALL))
    stone = builder.material(SMALL)
    z = plinth
    for _ in range(draw.integer(2, 4)):
        r = half * draw.uniform(0.4, 0.9)
        tall = r * draw.uniform(0.7, 1.8)
        builder.part(draw.choice((BALL, CYLINDER)), spot, (0, 0, z + tall), (r, r, tall), stone)
        z += 1.8 * tall
    builder.points.append(spot.point(0, 0, plinth + 0.2))


def ladder(builder: Builder, spot: Spot) -> None:
    """Thin bars: a ladder, a rack, a railing."""
    draw = builder.draw
    material = builder.material(FURNITURE)
    half_x, high = draw.uniform(0.2, 0.7), draw.uniform(0.8, 2.0)
    bar = draw.uniform(0.008, 0.025)
    lean = -draw.uniform(0.05, 0.3)
    for x in (-half_x, half_x):
        half = (bar, bar, high / 2)
        builder.part(CYLINDER, spot, (x, lean, high / 2), half, material)
    count = draw.integer(3, 7)
    upright = draw.chance(0.4)
    for n in range(count):
        share = (n + 0.5) / count
        if upright:
            place = (half_x * (2 * share - 1), lean, high / 2)
            builder.part(BOX, spot, place, (bar * 0.7, bar * 0.7, high / 2), material)
        else:
            place = (0.0, lean, high * share)
            builder.part(BOX, spot, place, (half_x, bar * 0.7, bar * 0.7), material)
    builder.points.append(spot.point(0, lean, high / 2))


def picture(builder: Builder, spot: Spot) -> None:
    """A framed picture, mirror-like panel or screen on a wall, at the spot's height."""
    draw = builder.draw
    half_x, half_z = draw.uniform(0.12, 0.7), draw.uniform(0.12, 0.5)
    rim = draw.uniform(0.01, 0.05)
    frame = builder.material(FURNITURE)
    inner = builder.material(PICTURES)
    builder.part(BOX, spot, (0, -0.012, 0), (half_x + rim, 0.012, half_z + rim), frame)
    builder.part(BOX, spot, (0, -0.02, 0), (half_x, 0.01, half_z), inner)
    builder.points.append(spot.point(0, 0, 0))


def door(builder: Builder, spot: Spot) -> None:
    """A door in its frame, on a wall."""
    draw = builder.draw
    half_x, high = draw.uniform(0.35, 0.5), draw.uniform(1.95, 2.15)
    frame, leaf = builder.material(FURNITURE), builder.material(FURNITURE)
    rim = draw.uniform(0.04, 0.09)
    builder.part(BOX, spot, (0, -0.02, high / 2), (half_x, 0.02, high / 2), leaf)
    for x in (-half_x - rim, half_x + rim):
        builder.part(BOX, spot, (x, -0.03, high / 2), (rim, 0.03, high / 2 + rim), frame)
    builder.part(BOX, spot, (0, -0.03, high + rim), (half_x, 0.03, rim), frame)
    builder.part(BALL, spot, (half_x * 0.8, -0.07, 1.0), (0.03, 0.03, 0.03), frame)
    for z in (high * 0.28, high * 0.72):
        panel = (half_x * 0.65, 0.008, high * 0.17)
        builder.part(BOX, spot, (0, -0.045, z), panel, leaf)


def pilasters(builder: Builder, spot: Spot) -> None:
    """Relief on a wall: pillars, a rail, domes, panels, in one material."""
    draw = builder.draw
    material = builder.material(FURNITURE)
    count, step = draw.integer(2, 5), draw.uniform(0.4, 1.0)
    kind = draw.choice((BOX, CYLINDER, BALL))
    half_z = draw.uniform(0.1, 0.35) if kind == BALL else draw.uniform(0.4, 1.2)
    half = (draw.uniform(0.05, 0.2), draw.uniform(0.02, 0.12), half_z)
    z = draw.uniform(half_z, max(half_z + 0.1, 1.6))
    for n in range(count):
        x = step * (n - (count - 1) / 2)
        builder.part(kind, spot, (x, 0, z), half, material)
    rail = (step * count / 2, 0.03, draw.uniform(0.02, 0.08))
    builder.part(BOX, spot, (0, -0.02, z + half_z), rail, material)
    builder.points.append(spot.point(0, 0, z))


def chairs_around(builder: Builder, spot: Spot) -> None:
    """A table with equal chairs: repeated shapes, the hard case for matching."""
    draw = builder.draw
    table(builder, spot)
    distance, start = draw.uniform(0.6, 0.9), draw.angle()
    wood, cloth = builder.material(FURNITURE), builder.material(SOFT)
    for n in range(draw.integer(2, 4)):
        turn = start + n * math.pi / 2 + draw.normal(0.15)
        place = spot.moved(-distance * math.sin(turn), distance * math.cos(turn), 0, turn)
        chair(builder, place, wood, cloth)


AGAINST_WALL: tuple[tuple[float, Piece], ...] = (
    (3, shelf), (3, cabinet), (2, sofa), (1, bed), (1, stairs), (0.8, ladder),
)  # fmt: skip
FREE: tuple[tuple[float, Piece], ...] = (
    (2, table), (2, chairs_around), (1.5, chair), (1.2, lamp), (1.5, plant), (1.2, rug),
    (2.5, heap), (0.8, statue),
)  # fmt: skip
ON_WALL: tuple[tuple[float, Piece], ...] = ((4, picture), (1.5, pilasters))


def any_piece(builder: Builder, spot: Spot, pieces: tuple[tuple[float, Piece], ...]) -> None:
    """One of a weighted list, at the spot."""
    chosen = builder.draw.weighted([weight for weight, _ in pieces])
    pieces[chosen][1](builder, spot)
