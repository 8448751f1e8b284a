"""Triton: what colour a surface has at a place. The program is ``texture.py``'s, line by line.

``row`` is a block of pointers, one a lane, to the material's columns.
"""

# Blocks and pointers have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from vggt3.data.procedural import bank, noise
from vggt3.data.procedural.materials import Column

PRIME_X, PRIME_Y = tl.constexpr(noise.PRIME_X), tl.constexpr(noise.PRIME_Y)
PRIME_Z, PRIME_SEED = tl.constexpr(noise.PRIME_Z), tl.constexpr(noise.PRIME_SEED)
MIX, TO_UNIT = tl.constexpr(noise.MIX), tl.constexpr(noise.TO_UNIT)
SIDE, LEVELS = tl.constexpr(bank.SIDE), tl.constexpr(bank.SIDE.bit_length() - 1)
TEXELS = tl.constexpr((4 * bank.SIDE * bank.SIDE - 1) // 3)
BITS, STEPS = tl.constexpr(bank.BITS), tl.constexpr(bank.STEPS)

COLOUR_A, COLOUR_B = tl.constexpr(int(Column.COLOUR_A)), tl.constexpr(int(Column.COLOUR_B))
COLOUR_C = tl.constexpr(int(Column.COLOUR_C))
JOINT_COLOUR = tl.constexpr(int(Column.JOINT_COLOUR))
FIGURE_COLOUR = tl.constexpr(int(Column.FIGURE_COLOUR))
STAIN_COLOUR = tl.constexpr(int(Column.STAIN_COLOUR))
CELL_WIDTH = tl.constexpr(int(Column.CELL_WIDTH))
CELL_HEIGHT = tl.constexpr(int(Column.CELL_HEIGHT))
ROW_SHIFT, ROW_JITTER = tl.constexpr(int(Column.ROW_SHIFT)), tl.constexpr(int(Column.ROW_JITTER))
CHECKER, SPLIT = tl.constexpr(int(Column.CHECKER)), tl.constexpr(int(Column.SPLIT))
JOINT_WIDTH = tl.constexpr(int(Column.JOINT_WIDTH))
FIGURE_SIZE = tl.constexpr(int(Column.FIGURE_SIZE))
FIGURE_ROUND = tl.constexpr(int(Column.FIGURE_ROUND))
FIGURE_CHANCE = tl.constexpr(int(Column.FIGURE_CHANCE))
GLYPHS, WARP = tl.constexpr(int(Column.GLYPHS)), tl.constexpr(int(Column.WARP))
TURN_COS, TURN_SIN = tl.constexpr(int(Column.TURN_COS)), tl.constexpr(int(Column.TURN_SIN))
FREQUENCY, STRETCH = tl.constexpr(int(Column.FREQUENCY)), tl.constexpr(int(Column.STRETCH))
OCTAVE_1 = tl.constexpr(int(Column.OCTAVE_1))
STAIN_LEVEL = tl.constexpr(int(Column.STAIN_LEVEL))
STAIN_SOFTNESS = tl.constexpr(int(Column.STAIN_SOFTNESS))
IMAGE, IMAGE_SIZE = tl.constexpr(int(Column.IMAGE)), tl.constexpr(int(Column.IMAGE_SIZE))
IMAGE_SHARE, SEED = tl.constexpr(int(Column.IMAGE_SHARE)), tl.constexpr(int(Column.SEED))


@triton.jit
def unit(x):
    """Cut to [0, 1]."""
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def blend(a, b, share):
    """From a to b by a share."""
    return a + (b - a) * share


@triton.jit
def to_unit(code):
    """Hash codes, mixed, as numbers in [0, 1)."""
    code = (code ^ (code >> 13)) * MIX
    code = (code ^ (code >> 16)) & 0xFFFF
    return code.to(tl.float32) * TO_UNIT


@triton.jit
def cell_code(x, y, seed):
    """Hash code of an integer cell."""
    code = (x * PRIME_X) ^ (y * PRIME_Y) ^ (seed * PRIME_SEED)
    code = (code ^ (code >> 13)) * MIX
    return code ^ (code >> 16)


@triton.jit
def fade(t):
    """Smooth step between lattice points."""
    return t * t * (3.0 - 2.0 * t)


@triton.jit
def layer_noise(hx, hy, layer, u, v):
    """Bilinear noise in one layer of the lattice."""
    a, b = to_unit(hx ^ hy ^ layer), to_unit((hx + PRIME_X) ^ hy ^ layer)
    c = to_unit(hx ^ (hy + PRIME_Y) ^ layer)
    d = to_unit((hx + PRIME_X) ^ (hy + PRIME_Y) ^ layer)
    return blend(blend(a, b, u), blend(c, d, u), v)


@triton.jit
def value_noise(x, y, z, seed):
    """Smooth noise in [−1, 1] with one lattice point a unit."""
    x0, y0, z0 = tl.floor(x), tl.floor(y), tl.floor(z)
    u, v, w = fade(x - x0), fade(y - y0), fade(z - z0)
    hx, hy = x0.to(tl.int32) * PRIME_X, y0.to(tl.int32) * PRIME_Y
    zi = z0.to(tl.int32)
    corner = seed * PRIME_SEED
    low = layer_noise(hx, hy, (zi * PRIME_Z) ^ corner, u, v)
    high = layer_noise(hx, hy, ((zi + 1) * PRIME_Z) ^ corner, u, v)
    return blend(low, high, w) * 2.0 - 1.0


@triton.jit
def octave(row, number: tl.constexpr, factor: tl.constexpr, x, y, z, seed, fine):
    """One octave's noise, and its share of the sum: it fades where pixels are coarser."""
    noise = value_noise(x * factor, y * factor, z * factor, seed + 101 * number)
    share = tl.load(row + OCTAVE_1 + number) * unit(1.5 - 2.0 * fine * factor)
    return noise, share * noise


@triton.jit
def octaves(row, x, y, z, axis, seed, footprint):
    """The weighted sum of the octaves, the first and the second."""
    frequency, stretch = tl.load(row + FREQUENCY), tl.load(row + STRETCH)
    x = x * frequency * stretch
    y = y * frequency
    y, z = tl.where(axis == 0, y * stretch, y), z * frequency
    fine = footprint * frequency
    first, total = octave(row, 0, 1.0, x, y, z, seed, fine)
    second, part = octave(row, 1, 2.7, x, y, z, seed, fine)
    total += part
    _, part = octave(row, 2, 7.3, x, y, z, seed, fine)
    total += part
    _, part = octave(row, 3, 19.7, x, y, z, seed, fine)
    return total + part, first, second


@triton.jit
def towards(row, column: tl.constexpr, r, g, b, share):
    """The colour blended with the one in the material's column."""
    r = blend(r, tl.load(row + column), share)
    g = blend(g, tl.load(row + column + 1), share)
    return r, g, blend(b, tl.load(row + column + 2), share)


@triton.jit
def figure(row, a, b, code, cell, footprint):
    """Coverage of the cell by its figure."""
    x, y = tl.abs(2.0 * a - 1.0), tl.abs(2.0 * b - 1.0)
    reach = blend(tl.maximum(x, y), tl.sqrt(x * x + y * y), tl.load(row + FIGURE_ROUND))
    inside = (tl.load(row + FIGURE_SIZE) - reach) * cell / (2.0 * footprint)
    coverage = unit(inside + 0.5)
    glyphs = tl.load(row + GLYPHS)
    dot_x, dot_y = (a * glyphs).to(tl.int32), (b * glyphs).to(tl.int32)
    printed = tl.where(to_unit(cell_code(dot_x, dot_y, code)) < 0.45, 1.0, 0.0)
    readable = unit(1.5 - footprint * glyphs / cell)
    dots = coverage * (0.45 + (printed - 0.45) * readable)
    coverage = tl.where(glyphs > 0, dots, coverage)
    return tl.where(to_unit(code + 17) < tl.load(row + FIGURE_CHANCE), coverage, 0.0)


@triton.jit
def cells(row, u, v, seed, footprint):
    """The pattern: cells, figures, joints."""
    width, height = tl.load(row + CELL_WIDTH), tl.load(row + CELL_HEIGHT)
    line = tl.floor(v / height)
    line_code = line.to(tl.int32)
    jitter = tl.load(row + ROW_JITTER) * to_unit(cell_code(line_code, line_code, seed))
    across = u / width + line * tl.load(row + ROW_SHIFT) + jitter
    a, b = across - tl.floor(across), v / height - line
    column = tl.floor(across).to(tl.int32)
    split = to_unit(cell_code(column, line_code, seed + 31)) < tl.load(row + SPLIT)
    parts = tl.where(split, 2.0, 1.0)
    a, b = a * parts, b * parts
    right, upper = tl.floor(a), tl.floor(b)
    a, b = a - right, b - upper
    width, height = width / parts, height / parts
    column = column * 2 + right.to(tl.int32)
    line_code = line_code * 2 + upper.to(tl.int32)
    code = cell_code(column, line_code, seed)

    parity = (((column >> 1) + (line_code >> 1)) & 1).to(tl.float32)
    pick = blend(to_unit(code), parity, tl.load(row + CHECKER))
    red, green = tl.load(row + COLOUR_A), tl.load(row + COLOUR_A + 1)
    blue = tl.load(row + COLOUR_A + 2)
    red, green, blue = towards(row, COLOUR_B, red, green, blue, unit(2.0 * pick))
    red, green, blue = towards(row, COLOUR_C, red, green, blue, unit(2.0 * pick - 1.0))
    cell = tl.minimum(width, height)
    shown = figure(row, a, b, code, cell, footprint) * unit(1.5 - 1.5 * footprint / cell)
    red, green, blue = towards(row, FIGURE_COLOUR, red, green, blue, shown)
    edge = tl.minimum(tl.minimum(a, 1.0 - a) * width, tl.minimum(b, 1.0 - b) * height)
    half = tl.load(row + JOINT_WIDTH) / 2.0
    joint = unit((half - edge) / footprint + 0.5) * tl.minimum(half / footprint, 1.0)
    return towards(row, JOINT_COLOUR, red, green, blue, joint)


@triton.jit
def mirrored(x):
    """Fold the line into [0, 1]."""
    wrapped = x - 2.0 * tl.floor(x / 2.0)
    return unit(tl.minimum(wrapped, 2.0 - wrapped))


@triton.jit
def texel(texels, base, x, y, side):
    """One texel of a level, clamped to its border."""
    column = tl.minimum(tl.maximum(x, 0.0), side - 1.0).to(tl.int32)
    line = tl.minimum(tl.maximum(y, 0.0), side - 1.0).to(tl.int32)
    code = tl.load(texels + base + line * side.to(tl.int32) + column)
    red = (code & STEPS).to(tl.float32) / STEPS
    green = ((code >> BITS) & STEPS).to(tl.float32) / STEPS
    blue = ((code >> (2 * BITS)) & STEPS).to(tl.float32) / STEPS
    return red * red, green * green, blue * blue


@triton.jit
def photo(row, texels, u, v, seed, face, footprint, red, green, blue):
    """The pattern with a photo of the bank laid over it."""
    size, index = tl.load(row + IMAGE_SIZE), tl.load(row + IMAGE)
    offset = seed + face * 7919
    level = tl.floor(tl.log2(tl.maximum(footprint / size * SIDE, 1.0)) + 0.5)
    level = tl.minimum(level, LEVELS)
    side = tl.exp2(-level) * SIDE
    start = ((side * side - SIDE * SIDE) * (-4.0 / 3.0) + 0.5).to(tl.int32)
    base = tl.maximum(index, 0.0).to(tl.int32) * TEXELS + start
    x = mirrored(u / size + to_unit(offset)) * side - 0.5
    y = mirrored(-v / size + to_unit(offset + 1)) * side - 0.5
    x0, y0 = tl.floor(x), tl.floor(y)
    r00, g00, b00 = texel(texels, base, x0, y0, side)
    r01, g01, b01 = texel(texels, base, x0 + 1.0, y0, side)
    r10, g10, b10 = texel(texels, base, x0, y0 + 1.0, side)
    r11, g11, b11 = texel(texels, base, x0 + 1.0, y0 + 1.0, side)
    x, y = x - x0, y - y0
    share = tl.where(index >= 0, tl.load(row + IMAGE_SHARE), 0.0)
    red = blend(red, blend(blend(r00, r01, x), blend(r10, r11, x), y), share)
    green = blend(green, blend(blend(g00, g01, x), blend(g10, g11, x), y), share)
    return red, green, blend(blue, blend(blend(b00, b01, x), blend(b10, b11, x), y), share)


@triton.jit
def albedo(row, texels, x, y, z, axis, face, footprint, has_bank: tl.constexpr):
    """Linear RGB of the surface under white light."""
    seed = tl.load(row + SEED).to(tl.int32)
    total, first, second = octaves(row, x, y, z, axis, seed, footprint)
    warp = tl.load(row + WARP)
    u = tl.where(axis == 0, y, x) + warp * first
    v = tl.where(axis == 2, y, z) + warp * second
    cos, sin = tl.load(row + TURN_COS), tl.load(row + TURN_SIN)
    u, v = u * cos + v * sin, v * cos - u * sin
    red, green, blue = cells(row, u, v, seed + face * 7919, footprint)
    if has_bank:
        red, green, blue = photo(row, texels, u, v, seed, face, footprint, red, green, blue)
    gain = 1.0 + total
    level, soft = tl.load(row + STAIN_LEVEL), tl.load(row + STAIN_SOFTNESS)
    stain = unit((0.65 * first + 0.35 * second - level) / soft + 0.5)
    red, green, blue = towards(
        row, STAIN_COLOUR, red * gain, green * gain, blue * gain, stain
    )  # fmt: skip
    red = tl.minimum(tl.maximum(red, 0.003), 1.0)
    green = tl.minimum(tl.maximum(green, 0.003), 1.0)
    return red, green, tl.minimum(tl.maximum(blue, 0.003), 1.0)
