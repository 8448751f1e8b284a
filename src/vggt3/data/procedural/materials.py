"""Materials: one row of numbers a surface, so that every surface runs the same program.

The program (``texture.py``) lays a grid of cells on the face, colours them, draws joints and a
figure in each, bends it all by noise, and stains it. Bricks, tiles, planks, stripes, checks,
books, dots, windows, pages of print, marble, wood, lawn are all points of this one space.
"""

from __future__ import annotations

import colorsys
import math
from enum import IntEnum

from vggt3.data.procedural.draw import Draw

Colour = tuple[float, float, float]


class Column(IntEnum):
    """Columns of a material row. Colours are linear RGB; three columns each."""

    COLOUR_A = 0
    COLOUR_B = 3
    COLOUR_C = 6
    JOINT_COLOUR = 9
    FIGURE_COLOUR = 12
    STAIN_COLOUR = 15
    CELL_WIDTH = 18  # m
    CELL_HEIGHT = 19  # m
    ROW_SHIFT = 20  # cells by which each row is shifted against the last
    ROW_JITTER = 21  # 1: rows are shifted at random
    CHECKER = 22  # 0: cells coloured at random, 1: in turn
    JOINT_WIDTH = 23  # m
    SPLIT = 24  # probability that a cell is cut into 2 × 2
    FIGURE_SIZE = 25  # of half a cell
    FIGURE_ROUND = 26  # 0: rectangle, 1: ellipse
    FIGURE_CHANCE = 27  # share of the cells that carry a figure
    GLYPHS = 28  # dots a cell side, 0: none
    TURN_COS = 29
    TURN_SIN = 30
    WARP = 31  # m
    FREQUENCY = 32  # 1/m of the lowest octave
    STRETCH = 33  # of the noise along the face's u axis
    OCTAVE_1 = 34  # amplitudes
    OCTAVE_2 = 35
    OCTAVE_3 = 36
    OCTAVE_4 = 37
    STAIN_LEVEL = 38  # noise above which the stain shows
    STAIN_SOFTNESS = 39
    SPECULAR = 40
    GLOSS = 41
    EMISSION = 42
    IMAGE = 43  # row of the bank of photos, −1: none
    IMAGE_SIZE = 44  # m a side
    IMAGE_SHARE = 45  # 0: not shown, 1: covers the cells
    SEED = 46


WIDTH = 47
"""P: columns of a material row."""


class Material:
    """A row under construction; plain grey until told otherwise."""

    def __init__(self, draw: Draw) -> None:
        self.row = [0.0] * WIDTH
        for column in (Column.COLOUR_A, Column.COLOUR_B, Column.COLOUR_C):
            self.colour(column, (0.5, 0.5, 0.5))
        self.put(CELL_WIDTH=1.0, CELL_HEIGHT=1.0, FREQUENCY=2.0, STRETCH=1.0)
        self.put(STAIN_LEVEL=9.0, STAIN_SOFTNESS=0.1, GLOSS=16.0, IMAGE=-1.0, IMAGE_SIZE=1.0)
        self.put(TURN_COS=1.0, SEED=float(draw.seed()))

    def put(self, **values: float) -> Material:
        """Set columns by name."""
        for name, value in values.items():
            self.row[Column[name]] = value
        return self

    def colour(self, column: Column, rgb: Colour) -> Material:
        """Set one colour, linear RGB."""
        self.row[column : column + 3] = rgb
        return self

    def colours(self, a: Colour, b: Colour, c: Colour) -> Material:
        """Set the cells' three colours."""
        self.colour(Column.COLOUR_A, a).colour(Column.COLOUR_B, b)
        return self.colour(Column.COLOUR_C, c)

    def turn(self, angle: float) -> Material:
        """Turn the pattern in its face by ``angle`` radians."""
        return self.put(TURN_COS=math.cos(angle), TURN_SIN=math.sin(angle))

    def octaves(self, first: float, second: float, third: float, fourth: float) -> Material:
        """Set the amplitudes of the noise."""
        return self.put(OCTAVE_1=first, OCTAVE_2=second, OCTAVE_3=third, OCTAVE_4=fourth)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Linear RGB of an HSV colour given as displayed (sRGB)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return red**2.2, green**2.2, blue**2.2


def scaled(rgb: Colour, factor: float) -> Colour:
    """The colour made lighter or darker, at most 1."""
    return min(1.0, rgb[0] * factor), min(1.0, rgb[1] * factor), min(1.0, rgb[2] * factor)


def any_colour(draw: Draw) -> Colour:
    """From grey to vivid."""
    return hsv(draw.unit(), draw.unit() ** 1.5, draw.uniform(0.15, 0.95))


def pale(draw: Draw) -> Colour:
    """Wall paint."""
    return hsv(draw.unit(), draw.uniform(0.0, 0.25), draw.uniform(0.6, 0.97))


def earthen(draw: Draw) -> Colour:
    """Wood, brick, stone, soil."""
    return hsv(draw.uniform(0.01, 0.13), draw.uniform(0.1, 0.75), draw.uniform(0.2, 0.8))


def leafy(draw: Draw) -> Colour:
    """Leaves and grass."""
    return hsv(draw.uniform(0.16, 0.36), draw.uniform(0.3, 0.8), draw.uniform(0.15, 0.6))


def varied(draw: Draw, rgb: Colour, amount: float) -> Colour:
    """A neighbour of a colour."""
    light = math.exp(draw.normal(amount))
    tinted = [c * light * math.exp(draw.normal(amount / 3)) for c in rgb]
    return min(1.0, tinted[0]), min(1.0, tinted[1]), min(1.0, tinted[2])
