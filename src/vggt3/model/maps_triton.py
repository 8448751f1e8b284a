"""What the encoder and the dense heads do to images and maps between their products, in Triton.

Maps are [N, H, W, C] in memory. Forwards only; fp32 inside.
"""

# Blocks and pointers have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def patches(
    images, rows, count, height, width, scale, m0, m1, m2, d0, d1, d2,
    side: tl.constexpr, padded: tl.constexpr, tile: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Rows of normalised pixels, channel by channel and line by line; zeros behind them."""
    patch = tl.program_id(0) * tile + tl.arange(0, tile)
    lane = tl.program_id(1) * block + tl.arange(0, block)
    columns = width // side
    each = (height // side) * columns
    image, inside = patch // each, patch % each
    top, left = inside // columns * side, inside % columns * side
    channel, pixel = lane // (side * side), lane % (side * side)
    row, column = pixel // side, pixel % side
    real = (lane < 3 * side * side)[None, :]
    live = (patch < count)[:, None]
    start = (image.to(tl.int64) * 3)[:, None] + channel[None, :]
    place = (start * height + top[:, None] + row[None, :]) * width + left[:, None] + column[None, :]
    value = tl.load(images + place, mask=live & real, other=0).to(tl.float32) * scale
    mean = tl.where(channel == 0, m0, tl.where(channel == 1, m1, m2))[None, :]
    deviation = tl.where(channel == 0, d0, tl.where(channel == 1, d1, d2))[None, :]
    value = tl.where(real, (value - mean) / deviation, 0.0)
    place = patch.to(tl.int64)[:, None] * padded + lane[None, :]
    tl.store(rows + place, value.to(rows.dtype.element_ty), mask=live & (lane < padded)[None, :])


@triton.jit
def upsample(
    x, bias, add, out, rows, columns, height, width, channels, added: tl.constexpr,
    tile: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Bilinear with aligned corners, plus a bias a channel and another map."""
    line = tl.program_id(0).to(tl.int64)
    image, y = line // height, line % height
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    lane = tl.arange(0, block)
    live = (column < width)[:, None] & (lane < channels)[None, :]
    steps_y, steps_x = tl.maximum(height - 1, 1), tl.maximum(width - 1, 1)
    at_y, at_x = y * (rows - 1), column * (columns - 1)  # in whole numbers of 1/steps: exact
    upper, left = at_y // steps_y, at_x // steps_x
    down = (at_y % steps_y).to(tl.float32) / steps_y
    right = ((at_x % steps_x).to(tl.float32) / steps_x)[:, None]
    lower, next_to = tl.minimum(upper + 1, rows - 1), tl.minimum(left + 1, columns - 1)
    first = (image * rows + upper) * columns
    second = (image * rows + lower) * columns
    near, far = left[:, None] * channels, next_to[:, None] * channels
    top = x + first * channels + lane[None, :]
    low = x + second * channels + lane[None, :]
    a = tl.load(top + near, mask=live, other=0.0).to(tl.float32)
    b = tl.load(top + far, mask=live, other=0.0).to(tl.float32)
    c = tl.load(low + near, mask=live, other=0.0).to(tl.float32)
    d = tl.load(low + far, mask=live, other=0.0).to(tl.float32)
    a += (b - a) * right
    c += (d - c) * right
    a += (c - a) * down
    a += tl.load(bias + lane, mask=lane < channels, other=0.0).to(tl.float32)[None, :]
    place = (line * width + column[:, None]) * channels + lane[None, :]
    if added:
        a += tl.load(add + place, mask=live, other=0.0).to(tl.float32)
    tl.store(out + place, a.to(out.dtype.element_ty), mask=live)


@triton.jit
def add_bias(
    x, bias, add, out, count, channels, tile: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """x + bias + add of ``tile`` pixels."""
    pixel = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    lane = tl.arange(0, block)
    live = (pixel < count)[:, None] & (lane < channels)[None, :]
    place = pixel[:, None] * channels + lane[None, :]
    total = tl.load(x + place, mask=live, other=0.0).to(tl.float32)
    total += tl.load(add + place, mask=live, other=0.0).to(tl.float32)
    total += tl.load(bias + lane, mask=lane < channels, other=0.0).to(tl.float32)[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=live)


@triton.jit
def signed_log(x):
    """sign(x)·(exp|x| - 1), exact for small x."""
    size = tl.abs(x)
    grown = tl.where(size < 0.01, size * (1 + size * (0.5 + size / 6)), tl.exp(size) - 1)
    return tl.where(x < 0, -grown, grown)


@triton.jit
def finish(
    x, shift, weight, bias, values, confidence, count, pixels, channels,
    outputs: tl.constexpr, tile: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """ReLU(x + shift) through the last 1×1: ``outputs`` values of a pixel, and a confidence."""
    here = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    lane = tl.arange(0, block)
    known, live = lane < channels, here < count
    both = live[:, None] & known[None, :]
    value = tl.load(x + here[:, None] * channels + lane[None, :], mask=both, other=0.0)
    place = (here % pixels)[:, None] * channels + lane[None, :]
    value = value.to(tl.float32) + tl.load(shift + place, mask=both, other=0.0).to(tl.float32)
    value = tl.maximum(value, 0.0)
    for n in tl.static_range(outputs + 1):
        w = tl.load(weight + n * channels + lane, mask=known, other=0.0).to(tl.float32)
        found = tl.sum(value * w[None, :], 1) + tl.load(bias + n).to(tl.float32)
        if n == outputs:
            tl.store(confidence + here, 1 + tl.exp(found), mask=live)
        elif outputs == 1:
            tl.store(values + here, tl.exp(found), mask=live)
        else:
            tl.store(values + here * outputs + n, signed_log(found), mask=live)
