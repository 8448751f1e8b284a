"""Materials by name: each function draws one row."""

from __future__ import annotations

import math
from collections.abc import Callable

from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.materials import (
    Column,
    Material,
    any_colour,
    earthen,
    hsv,
    leafy,
    pale,
    scaled,
    varied,
)

Recipe = Callable[[Draw], Material]


def plain(draw: Draw, colour: tuple[float, float, float] | None = None) -> Material:
    """Weak texture: one colour with faint clouds, as painted walls and plastic have."""
    base = any_colour(draw) if colour is None else colour
    faint = draw.uniform(0.01, 0.06)
    material = Material(draw).colours(base, base, base).octaves(faint, faint, faint, faint)
    material.put(FREQUENCY=draw.log_uniform(0.5, 6))
    return material.put(SPECULAR=draw.choice((0.0, 0.0, 0.15, 0.4)), GLOSS=draw.uniform(8, 60))


def paint(draw: Draw) -> Material:
    """A wall: paint, sometimes with a dado line, stains or a second coat."""
    base = pale(draw)
    material = plain(draw, base).put(SPECULAR=0.0)
    if draw.chance(0.35):
        stain(draw, material, scaled(base, draw.uniform(0.5, 0.9)))
    return material


def plaster(draw: Draw) -> Material:
    """Rough plaster or concrete: noise at all scales."""
    base = hsv(draw.uniform(0.02, 0.15), draw.uniform(0, 0.25), draw.uniform(0.4, 0.9))
    strength = draw.uniform(0.1, 0.3)
    material = Material(draw).colours(base, base, base)
    material.octaves(*(strength * draw.uniform(0.4, 1.2) for _ in range(4)))
    material.put(FREQUENCY=draw.log_uniform(0.8, 4))
    if draw.chance(0.6):
        stain(draw, material, scaled(base, draw.uniform(0.3, 0.8)))
    return material


def stain(draw: Draw, material: Material, colour: tuple[float, float, float]) -> Material:
    """Patches of another colour."""
    material.colour(Column.STAIN_COLOUR, colour)
    return material.put(
        STAIN_LEVEL=draw.uniform(0.05, 0.45), STAIN_SOFTNESS=draw.log_uniform(0.03, 0.8)
    )


def wallpaper(draw: Draw) -> Material:
    """Repeated small figures or stripes on a wall."""
    a, b = pale(draw), pale(draw)
    wide = draw.log_uniform(0.06, 0.4)
    material = Material(draw).colours(a, varied(draw, a, 0.05), b)
    material.colour(Column.FIGURE_COLOUR, any_colour(draw))
    material.put(CELL_WIDTH=wide, CELL_HEIGHT=wide * draw.log_uniform(0.6, 2), CHECKER=1.0)
    material.put(ROW_SHIFT=draw.choice((0.0, 0.5)), FIGURE_CHANCE=draw.choice((0.0, 0.7, 1.0)))
    material.put(FIGURE_SIZE=draw.uniform(0.3, 0.8), FIGURE_ROUND=draw.choice((0.0, 0.5, 1.0)))
    if draw.chance(0.3):
        material.put(CELL_HEIGHT=50.0)
    return material.octaves(0.03, 0.03, 0.03, 0.03)


def bricks(draw: Draw) -> Material:
    """Masonry: rows of bricks or blocks with joints."""
    base = earthen(draw) if draw.chance(0.7) else any_colour(draw)
    high = draw.log_uniform(0.06, 0.35)
    material = Material(draw)
    material.colours(base, varied(draw, base, 0.25), varied(draw, base, 0.25))
    material.colour(Column.JOINT_COLOUR, pale(draw))
    material.put(CELL_HEIGHT=high, CELL_WIDTH=high * draw.uniform(1.5, 3.5))
    material.put(ROW_SHIFT=draw.choice((0.5, 0.5, 0.33)), ROW_JITTER=draw.choice((0.0, 1.0)))
    material.put(JOINT_WIDTH=high * draw.uniform(0.06, 0.2), SPLIT=draw.choice((0.0, 0.15)))
    material.put(FREQUENCY=draw.log_uniform(2, 8), WARP=draw.choice((0.0, 0.01)))
    return material.octaves(*(draw.uniform(0.03, 0.2) for _ in range(4)))


def tiles(draw: Draw) -> Material:
    """Square tiles, in two colours or one, glossy."""
    base, side = any_colour(draw), draw.log_uniform(0.1, 0.7)
    other = varied(draw, base, 0.06) if draw.chance(0.5) else any_colour(draw)
    material = Material(draw).colours(base, other, other)
    material.colour(Column.JOINT_COLOUR, draw.choice((pale(draw), hsv(0, 0, 0.2))))
    material.put(CELL_WIDTH=side, CELL_HEIGHT=side, CHECKER=draw.choice((1.0, 1.0, 0.0)))
    material.put(JOINT_WIDTH=draw.uniform(0.003, 0.02), SPECULAR=draw.uniform(0, 0.5))
    material.put(GLOSS=draw.uniform(20, 120), FREQUENCY=draw.log_uniform(1, 6))
    if draw.chance(0.35):
        material.colour(Column.FIGURE_COLOUR, any_colour(draw))
        material.put(FIGURE_SIZE=draw.uniform(0.3, 0.9), FIGURE_ROUND=draw.unit())
        material.put(FIGURE_CHANCE=draw.choice((0.2, 1.0)))
    return material.octaves(*(draw.uniform(0.0, 0.12) for _ in range(4)))


def planks(draw: Draw) -> Material:
    """Floor boards or panelling, with grain along them."""
    base, wide = earthen(draw), draw.log_uniform(0.05, 0.2)
    material = Material(draw)
    material.colours(base, varied(draw, base, 0.2), varied(draw, base, 0.2))
    material.colour(Column.JOINT_COLOUR, scaled(base, 0.25))
    material.put(CELL_HEIGHT=wide, CELL_WIDTH=draw.uniform(0.6, 2.5), ROW_JITTER=1.0)
    material.put(JOINT_WIDTH=draw.uniform(0.002, 0.008))
    material.put(FREQUENCY=draw.log_uniform(6, 20), STRETCH=draw.uniform(0.03, 0.2))
    material.put(SPECULAR=draw.uniform(0, 0.3), GLOSS=draw.uniform(10, 50))
    return material.octaves(*(draw.uniform(0.05, 0.25) for _ in range(4)))


def wood(draw: Draw) -> Material:
    """Furniture wood: wavy grain without joints."""
    base = earthen(draw)
    material = Material(draw).colours(base, varied(draw, base, 0.25), base)
    material.put(CELL_HEIGHT=draw.log_uniform(0.02, 0.08), CELL_WIDTH=50.0)
    material.put(FREQUENCY=draw.log_uniform(3, 12), STRETCH=draw.uniform(0.1, 0.4))
    material.put(WARP=draw.uniform(0.0, 0.05), SPECULAR=draw.uniform(0, 0.25))
    material.turn(draw.choice((0.0, math.pi / 2)))
    return material.octaves(*(draw.uniform(0.05, 0.2) for _ in range(4)))


def marble(draw: Draw) -> Material:
    """Stone with bent veins."""
    base = hsv(draw.unit(), draw.uniform(0, 0.3), draw.uniform(0.25, 0.95))
    material = Material(draw)
    material.colours(base, varied(draw, base, 0.2), varied(draw, base, 0.1))
    material.colour(Column.JOINT_COLOUR, varied(draw, scaled(base, 0.5), 0.4))
    side = draw.log_uniform(0.15, 0.8)
    material.put(CELL_WIDTH=side, CELL_HEIGHT=side * draw.uniform(0.6, 1.6), ROW_JITTER=1.0)
    material.put(JOINT_WIDTH=draw.uniform(0.005, 0.03), WARP=side * draw.uniform(0.3, 0.9))
    material.put(FREQUENCY=draw.log_uniform(1.5, 5), SPECULAR=draw.uniform(0, 0.5), GLOSS=40.0)
    return material.octaves(*(draw.uniform(0.05, 0.2) for _ in range(4))).turn(draw.angle())


def rubble(draw: Draw) -> Material:
    """Field stones or cobbles in mortar."""
    base = hsv(draw.uniform(0.02, 0.2), draw.uniform(0, 0.35), draw.uniform(0.3, 0.8))
    side = draw.log_uniform(0.08, 0.5)
    material = Material(draw)
    material.colours(base, varied(draw, base, 0.4), varied(draw, earthen(draw), 0.3))
    material.colour(Column.JOINT_COLOUR, scaled(base, draw.uniform(0.2, 0.7)))
    material.put(CELL_WIDTH=side * draw.uniform(1, 2), CELL_HEIGHT=side, ROW_JITTER=1.0)
    material.put(SPLIT=draw.uniform(0, 0.5), JOINT_WIDTH=side * draw.uniform(0.08, 0.25))
    material.put(WARP=side * draw.uniform(0.1, 0.3), FREQUENCY=1.5 / side)
    return material.octaves(*(draw.uniform(0.08, 0.25) for _ in range(4)))


def fabric(draw: Draw) -> Material:
    """Cloth: stripes, checks or plain weave, finely mottled."""
    a, b = any_colour(draw), any_colour(draw)
    wide = draw.log_uniform(0.015, 0.2)
    material = Material(draw).colours(a, b, any_colour(draw) if draw.chance(0.5) else a)
    style = draw.weighted((2, 2, 2))
    high = (50.0, wide, wide * draw.uniform(0.5, 2))[style]
    material.put(CELL_WIDTH=wide, CELL_HEIGHT=high, CHECKER=draw.choice((0.0, 1.0)))
    if style == 2:
        material.colours(a, varied(draw, a, 0.05), a)
    material.put(FREQUENCY=draw.log_uniform(5, 25), WARP=draw.choice((0.0, 0.004, 0.02)))
    return material.octaves(*(draw.uniform(0.02, 0.2) for _ in range(4))).turn(draw.angle())


def carpet(draw: Draw) -> Material:
    """A rug: nested cells with figures, mottled."""
    a, side = any_colour(draw), draw.log_uniform(0.08, 0.5)
    material = Material(draw).colours(a, any_colour(draw), any_colour(draw))
    material.colour(Column.FIGURE_COLOUR, any_colour(draw))
    material.colour(Column.JOINT_COLOUR, any_colour(draw))
    material.put(CELL_WIDTH=side, CELL_HEIGHT=side * draw.uniform(0.6, 1.6))
    material.put(CHECKER=draw.choice((0.0, 1.0)), SPLIT=draw.choice((0.0, 0.3)))
    material.put(FIGURE_CHANCE=draw.uniform(0.3, 1), FIGURE_SIZE=draw.uniform(0.4, 0.95))
    material.put(FIGURE_ROUND=draw.unit(), JOINT_WIDTH=draw.uniform(0, 0.2) * side)
    material.put(FREQUENCY=draw.log_uniform(6, 25), WARP=draw.choice((0.0, 0.01, 0.05)))
    return material.octaves(*(draw.uniform(0.03, 0.2) for _ in range(4)))


def books(draw: Draw) -> Material:
    """A row of spines: narrow upright cells of many colours, lettered."""
    material = Material(draw).colours(any_colour(draw), any_colour(draw), any_colour(draw))
    material.colour(Column.JOINT_COLOUR, hsv(0, 0, 0.12))
    material.colour(Column.FIGURE_COLOUR, draw.choice((pale(draw), any_colour(draw))))
    material.put(CELL_WIDTH=draw.uniform(0.02, 0.06), CELL_HEIGHT=draw.uniform(0.22, 0.5))
    material.put(JOINT_WIDTH=0.004, FIGURE_SIZE=draw.uniform(0.4, 0.8), FIGURE_CHANCE=0.7)
    material.put(GLYPHS=draw.choice((0.0, 6.0, 9.0)), ROW_JITTER=1.0)
    return material.octaves(0.1, 0.1, 0.08, 0.05)


def printed(draw: Draw) -> Material:
    """Paper, posters, labels, signs: blocks of dots that read like print from afar."""
    paper, ink = pale(draw), any_colour(draw)
    if draw.chance(0.3):
        paper, ink = ink, paper
    material = Material(draw).colours(paper, varied(draw, paper, 0.1), any_colour(draw))
    material.colour(Column.FIGURE_COLOUR, ink)
    side = draw.log_uniform(0.06, 0.4)
    material.put(CELL_WIDTH=side * draw.uniform(1, 2), CELL_HEIGHT=side)
    material.put(FIGURE_SIZE=draw.uniform(0.6, 1), FIGURE_CHANCE=draw.uniform(0.4, 1))
    material.put(GLYPHS=float(draw.integer(4, 14)), SPLIT=draw.uniform(0, 0.6))
    return material.octaves(0.03, 0.03, 0.03, 0.02)


def mosaic(draw: Draw) -> Material:
    """Patches of three colours, nested, bent or not: paintings, murals, camouflage."""
    material = Material(draw).colours(any_colour(draw), any_colour(draw), any_colour(draw))
    material.colour(Column.JOINT_COLOUR, any_colour(draw))
    material.colour(Column.FIGURE_COLOUR, any_colour(draw))
    side = draw.log_uniform(0.06, 0.6)
    material.put(CELL_WIDTH=side * draw.uniform(0.5, 2), CELL_HEIGHT=side)
    material.put(ROW_JITTER=draw.choice((0.0, 1.0)), SPLIT=draw.uniform(0, 0.8))
    material.put(JOINT_WIDTH=draw.choice((0.0, 0.01, 0.03)), WARP=side * draw.choice((0, 0.3, 1)))
    material.put(FIGURE_CHANCE=draw.uniform(0, 0.8), FIGURE_SIZE=draw.uniform(0.3, 0.9))
    material.put(FIGURE_ROUND=draw.unit(), FREQUENCY=draw.log_uniform(1, 6) / side / 4)
    material.octaves(*(draw.uniform(0.02, 0.3) for _ in range(4))).turn(draw.angle())
    return stain(draw, material, any_colour(draw)) if draw.chance(0.5) else material


def foliage(draw: Draw) -> Material:
    """Leaves, hedges, lawn: strong noise at all scales."""
    base = leafy(draw)
    side = draw.log_uniform(0.03, 0.15)
    material = Material(draw).colours(base, varied(draw, base, 0.4), varied(draw, base, 0.4))
    material.colour(Column.JOINT_COLOUR, scaled(base, 0.3))
    material.put(CELL_WIDTH=side, CELL_HEIGHT=side * draw.uniform(0.5, 1.5), ROW_JITTER=1.0)
    material.put(JOINT_WIDTH=side * 0.15, WARP=side * 0.5, FREQUENCY=draw.log_uniform(1.5, 6))
    material.octaves(*(draw.uniform(0.15, 0.4) for _ in range(4))).turn(draw.angle())
    return stain(draw, material, varied(draw, scaled(base, 0.6), 0.3))


def soil(draw: Draw) -> Material:
    """Gravel, sand, asphalt, earth."""
    base = hsv(draw.uniform(0.03, 0.15), draw.uniform(0, 0.4), draw.uniform(0.25, 0.75))
    material = Material(draw).colours(base, base, base).put(FREQUENCY=draw.log_uniform(0.4, 3))
    material.octaves(*(draw.uniform(0.08, 0.35) for _ in range(4)))
    return stain(draw, material, varied(draw, scaled(base, 0.8), 0.4))


def metal(draw: Draw) -> Material:
    """Brushed or lacquered metal: weak texture, strong highlights."""
    base = hsv(draw.unit(), draw.uniform(0, 0.3), draw.uniform(0.3, 0.8))
    material = plain(draw, base).put(SPECULAR=draw.uniform(0.4, 1.0))
    return material.put(GLOSS=draw.log_uniform(15, 120), STRETCH=0.1, FREQUENCY=20.0)


def glowing(draw: Draw) -> Material:
    """A lamp's shade or a window's light."""
    base = hsv(draw.uniform(0.08, 0.16), draw.uniform(0, 0.25), 0.97)
    return Material(draw).colours(base, base, base).put(EMISSION=draw.uniform(0.8, 2.5))


def outlook(draw: Draw) -> Material:
    """What a window shows: bright sky, trees and houses, out of focus."""
    sky = hsv(draw.uniform(0.5, 0.62), draw.uniform(0, 0.35), draw.uniform(0.75, 0.98))
    material = Material(draw).colours(sky, varied(draw, sky, 0.1), sky)
    material.colour(Column.FIGURE_COLOUR, varied(draw, earthen(draw), 0.3))
    wide = draw.log_uniform(0.15, 1.2)
    material.put(CELL_WIDTH=wide, CELL_HEIGHT=wide * draw.uniform(1, 3), ROW_JITTER=1.0)
    material.put(FIGURE_CHANCE=draw.choice((0.0, 0.4, 0.7)), FIGURE_SIZE=draw.uniform(0.5, 1))
    material.put(FREQUENCY=draw.log_uniform(1, 5), EMISSION=draw.uniform(0.5, 1.6))
    material.octaves(*(draw.uniform(0.03, 0.2) for _ in range(4)))
    return stain(draw, material, leafy(draw)) if draw.chance(0.7) else material


def windows(draw: Draw) -> Material:
    """A façade: rows of panes in a wall of plaster or brick."""
    wall = draw.choice((pale(draw), earthen(draw)))
    wide = draw.uniform(1.4, 3.2)
    material = Material(draw).colours(wall, varied(draw, wall, 0.04), wall)
    dark = hsv(draw.uniform(0.5, 0.65), draw.uniform(0, 0.4), draw.uniform(0.08, 0.4))
    material.colour(Column.FIGURE_COLOUR, dark)
    material.colour(Column.JOINT_COLOUR, varied(draw, scaled(wall, 0.7), 0.2))
    material.put(CELL_WIDTH=wide, CELL_HEIGHT=draw.uniform(2.2, 3.4), CHECKER=0.0)
    material.put(FIGURE_SIZE=draw.uniform(0.35, 0.6), FIGURE_CHANCE=draw.uniform(0.85, 1))
    material.put(JOINT_WIDTH=draw.choice((0.0, 0.06, 0.15)), FREQUENCY=draw.log_uniform(0.5, 3))
    return material.octaves(*(draw.uniform(0.03, 0.15) for _ in range(4)))


WALLS: tuple[tuple[float, Recipe], ...] = (
    (6, paint), (2, plaster), (2, wallpaper), (1.5, bricks), (0.7, tiles), (1, planks),
    (0.4, marble), (0.4, rubble), (0.5, mosaic),
)  # fmt: skip
FLOORS: tuple[tuple[float, Recipe], ...] = (
    (4, planks), (3, tiles), (1.5, fabric), (1.5, carpet), (1, plaster), (1, marble), (0.7, wood),
)  # fmt: skip
GROUNDS: tuple[tuple[float, Recipe], ...] = (
    (3, soil), (2, foliage), (2, rubble), (2, tiles), (1.5, bricks), (1, plaster),
)  # fmt: skip
FACADES: tuple[tuple[float, Recipe], ...] = (
    (3, windows), (2.5, bricks), (2, plaster), (2, rubble), (0.7, planks), (0.5, paint),
)  # fmt: skip
FURNITURE: tuple[tuple[float, Recipe], ...] = (
    (4, wood), (2.5, plain), (1, metal), (0.7, marble), (0.5, mosaic), (0.5, planks),
)  # fmt: skip
SOFT: tuple[tuple[float, Recipe], ...] = ((5, fabric), (1.5, plain), (1, carpet), (0.5, mosaic))
SMALL: tuple[tuple[float, Recipe], ...] = (
    (2, plain), (1.5, printed), (1.5, mosaic), (1, fabric), (1, wood), (1, metal), (0.6, books),
    (0.6, tiles), (0.6, marble), (0.4, foliage), (0.4, bricks),
)  # fmt: skip
PICTURES: tuple[tuple[float, Recipe], ...] = ((3, mosaic), (2, printed), (1, marble), (1, carpet))


def any_of(draw: Draw, recipes: tuple[tuple[float, Recipe], ...]) -> Material:
    """One of a weighted list."""
    chosen = draw.weighted([weight for weight, _ in recipes])
    return recipes[chosen][1](draw)
