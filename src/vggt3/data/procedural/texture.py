"""What colour a surface has at a place: the program that every material row parametrises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3.data.procedural.bank import Bank, sample
from vggt3.data.procedural.materials import Column
from vggt3.data.procedural.noise import cell_code, to_unit, value_noise

OCTAVES = (
    (1.0, Column.OCTAVE_1),
    (2.7, Column.OCTAVE_2),
    (7.3, Column.OCTAVE_3),
    (19.7, Column.OCTAVE_4),
)
"""Frequencies relative to the lowest, and the columns of their amplitudes."""


@dataclass(frozen=True)
class Place:
    """N places on surfaces."""

    position: Tensor
    """[3, N] metres along the solid's own axes."""
    axis: Tensor
    """[N] int64: the axis 0, 1, 2 that the face looks along."""
    face: Tensor
    """[N] int32 in 0..5, so that faces differ."""
    footprint: Tensor
    """[N] metres that a pixel covers there."""


def albedo(
    row: Tensor,  # [P, N] material of each place
    place: Place,
    bank: Bank | None,
) -> Tensor:
    """Linear RGB [3, N] of the surface under white light."""
    seed = row[Column.SEED].to(torch.int32)
    total, first, second = _octaves(row, place, seed)
    x, y, z = place.position
    u = torch.where(place.axis == 0, y, x)
    v = torch.where(place.axis == 2, y, z)
    warp = row[Column.WARP]
    u, v = u + warp * first, v + warp * second
    cos, sin = row[Column.TURN_COS], row[Column.TURN_SIN]
    u, v = u * cos + v * sin, v * cos - u * sin
    colour = _cells(row, u, v, seed + place.face * 7919, place.footprint)
    if bank is not None:
        colour = _photo(row, colour, u, v, seed, place, bank)
    colour = colour * (1 + total)
    level, soft = row[Column.STAIN_LEVEL], row[Column.STAIN_SOFTNESS]
    stain = ((0.65 * first + 0.35 * second - level) / soft + 0.5).clamp(0, 1)
    colour = torch.lerp(colour, _rgb(row, Column.STAIN_COLOUR), stain)
    return colour.clamp(0.003, 1)


def _rgb(row: Tensor, column: Column) -> Tensor:
    return row[column : column + 3]


def _octaves(row: Tensor, place: Place, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sum, the first octave and the second, each [N]."""
    frequency = row[Column.FREQUENCY]
    x, y, z = place.position * frequency
    stretch = row[Column.STRETCH]
    x, y = x * stretch, torch.where(place.axis == 0, y * stretch, y)
    total = torch.zeros_like(x)
    noises = []
    for number, (factor, column) in enumerate(OCTAVES):
        noise = value_noise(x * factor, y * factor, z * factor, seed + 101 * number)
        # An octave finer than the pixels would flicker between views: it fades to its mean.
        fine = place.footprint * frequency * factor
        total += row[column] * noise * (1.5 - 2 * fine).clamp(0, 1)
        noises.append(noise)
    return total, noises[0], noises[1]


def _cells(row: Tensor, u: Tensor, v: Tensor, seed: Tensor, footprint: Tensor) -> Tensor:
    """The pattern [3, N]: cells, figures, joints."""
    width, height = row[Column.CELL_WIDTH], row[Column.CELL_HEIGHT]
    line = (v / height).floor()
    line_code = line.to(torch.int32)
    jitter = row[Column.ROW_JITTER] * to_unit(cell_code(line_code, line_code, seed))
    across = u / width + line * row[Column.ROW_SHIFT] + jitter
    a, b = across - across.floor(), v / height - line
    column = across.floor().to(torch.int32)
    split = to_unit(cell_code(column, line_code, seed + 31)) < row[Column.SPLIT]
    parts = torch.where(split, 2.0, 1.0)
    a, b = a * parts, b * parts
    right, upper = a.floor(), b.floor()
    a, b = a - right, b - upper
    width, height = width / parts, height / parts
    column = column * 2 + right.to(torch.int32)
    line_code = line_code * 2 + upper.to(torch.int32)
    code = cell_code(column, line_code, seed)

    parity = (((column >> 1) + (line_code >> 1)) & 1).to(torch.float32)
    pick = torch.lerp(to_unit(code), parity, row[Column.CHECKER])
    first, second, third = (
        _rgb(row, c) for c in (Column.COLOUR_A, Column.COLOUR_B, Column.COLOUR_C)
    )
    low = torch.lerp(first, second, (2 * pick).clamp(0, 1))
    colour = torch.lerp(low, third, (2 * pick - 1).clamp(0, 1))

    cell = torch.minimum(width, height)
    sharp = (1.5 - 1.5 * footprint / cell).clamp(0, 1)
    figure = _figure(row, a, b, code, cell, footprint) * sharp
    colour = torch.lerp(colour, _rgb(row, Column.FIGURE_COLOUR), figure)
    edge = torch.minimum(torch.minimum(a, 1 - a) * width, torch.minimum(b, 1 - b) * height)
    half_joint = row[Column.JOINT_WIDTH] / 2
    thin = (half_joint / footprint).clamp(max=1)
    joint = ((half_joint - edge) / footprint + 0.5).clamp(0, 1) * thin
    return torch.lerp(colour, _rgb(row, Column.JOINT_COLOUR), joint)


def _figure(
    row: Tensor, a: Tensor, b: Tensor, code: Tensor, cell: Tensor, footprint: Tensor
) -> Tensor:
    """Coverage [N] of the cell by its figure: a rectangle, an ellipse, or dots like print."""
    x, y = (2 * a - 1).abs(), (2 * b - 1).abs()
    reach = torch.lerp(torch.maximum(x, y), (x * x + y * y).sqrt(), row[Column.FIGURE_ROUND])
    inside = (row[Column.FIGURE_SIZE] - reach) * cell / (2 * footprint)
    coverage = (inside + 0.5).clamp(0, 1)
    glyphs = row[Column.GLYPHS]
    dot_x, dot_y = (a * glyphs).to(torch.int32), (b * glyphs).to(torch.int32)
    printed = (to_unit(cell_code(dot_x, dot_y, code)) < 0.45).to(torch.float32)
    readable = (1.5 - footprint * glyphs / cell).clamp(0, 1)
    coverage = torch.where(glyphs > 0, coverage * (0.45 + (printed - 0.45) * readable), coverage)
    return torch.where(to_unit(code + 17) < row[Column.FIGURE_CHANCE], coverage, 0.0)


def _photo(
    row: Tensor,
    colour: Tensor,
    u: Tensor,
    v: Tensor,
    seed: Tensor,
    place: Place,
    bank: Bank,
) -> Tensor:
    """The pattern with a photo of the bank laid over it, [3, N]."""
    size = row[Column.IMAGE_SIZE]
    offset = seed + place.face * 7919
    u, v = u / size + to_unit(offset), -v / size + to_unit(offset + 1)
    index = row[Column.IMAGE]
    photo = sample(bank, index.clamp(min=0).to(torch.int64), u, v, place.footprint / size)
    share = torch.where(index >= 0, row[Column.IMAGE_SHARE], 0.0)
    return torch.lerp(colour, photo, share)
