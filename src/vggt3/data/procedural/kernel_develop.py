"""Triton: from radiance to a photo, ``photometry.develop``'s formulas in one pass."""

# Blocks and pointers have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from vggt3.data.procedural.kernel_texture import cell_code, to_unit, unit
from vggt3.data.procedural.photometry import Column

VIGNETTE, BLUR = tl.constexpr(int(Column.VIGNETTE)), tl.constexpr(int(Column.BLUR))
NOISE, CONTRAST = tl.constexpr(int(Column.NOISE)), tl.constexpr(int(Column.CONTRAST))


@triton.jit
def weight(step, sigma):
    """A Gaussian's weight ``step`` pixels away, not yet normalised."""
    share = step / tl.maximum(sigma, 1e-2)
    return tl.exp(-0.5 * share * share)


@triton.jit
def develop_tiles(
    radiance, gain, settings, seeds, image, high, wide, views,
    columns: tl.constexpr, radius: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Photos of all views, a program a tile."""
    # Thousands of views have more values than 32 bits count.
    view, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    across = tl.cdiv(wide, tile)
    lane = tl.arange(0, tile * tile)
    column = (number % across) * tile + lane % tile
    line = (number // across) * tile + lane // tile
    within = (column < wide) & (line < high)
    setting = settings + view * columns
    sigma, noise = tl.load(setting + BLUR), tl.load(setting + NOISE)
    exponent = tl.load(setting + CONTRAST) / 2.2
    norm = 1.0
    for step in tl.static_range(1, radius + 1):
        norm += 2.0 * weight(step * 1.0, sigma)
    x, y = 2.0 * column / (wide - 1) - 1.0, 2.0 * line / (high - 1) - 1.0
    light = 1.0 - tl.load(setting + VIGNETTE) * (x * x + y * y) / 2.0
    start = tl.load(seeds + view // views).to(tl.int32) + (view % views).to(tl.int32) * 4099
    for channel in tl.static_range(3):
        plane = radiance + (3 * view + channel) * high * wide
        total = tl.zeros([tile * tile], tl.float32)
        for down in tl.static_range(-radius, radius + 1):
            at = plane + tl.minimum(tl.maximum(line + down, 0), high - 1) * wide
            for right in tl.static_range(-radius, radius + 1):
                share = weight(down * 1.0, sigma) * weight(right * 1.0, sigma)
                place = tl.minimum(tl.maximum(column + right, 0), wide - 1)
                total += share * tl.load(at + place, mask=within, other=0.0)
        value = total / (norm * norm) * tl.load(gain + 3 * view + channel) * light
        value = unit(value * (1.0 + value * 0.1) / (1.0 + value * 0.6))
        value = tl.exp2(tl.log2(tl.maximum(value, 1e-12)) * exponent)
        code = cell_code(column, channel * high + line, start)
        grain = (to_unit(code) + to_unit(code + 1) + to_unit(code + 2) - 1.5) * 2.0
        out = image + ((3 * view + channel) * high + line) * wide + column
        tl.store(out, unit(value + noise * grain), mask=within)
