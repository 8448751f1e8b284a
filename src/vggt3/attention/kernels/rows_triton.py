"""What a block does to rows of tokens between its matrix products, in Triton, forwards only.

Each kernel reads a row once, computes in fp32 and writes in the dtype of what it read. Rows are
contiguous. A head's row of d turns in quarters: the first two are pairs that turn by the token's
row, the last two by its column (:mod:`vggt3.attention.rope`).
"""

# Blocks and pointers have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_scaled(
    x, mixed, gamma, total, count, width, tile: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """x + γ·mixed of ``tile`` rows."""
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    lane = tl.arange(0, block)
    live = (row < count)[:, None] & (lane < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + lane[None, :]
    scale = tl.load(gamma + lane, mask=lane < width, other=0.0).to(tl.float32)
    added = tl.load(mixed + place, mask=live, other=0.0).to(tl.float32) * scale[None, :]
    added += tl.load(x + place, mask=live, other=0.0).to(tl.float32)
    tl.store(total + place, added.to(total.dtype.element_ty), mask=live)


@triton.jit
def add_norm(
    x, mixed, gamma, weight, bias, total, normed, count, width, eps,
    tile: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """s = x + γ·mixed, and LayerNorm(s)·weight + bias, of ``tile`` rows."""
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    lane = tl.arange(0, block)
    inside = lane < width
    live = (row < count)[:, None] & inside[None, :]
    place = row.to(tl.int64)[:, None] * width + lane[None, :]
    scale = tl.load(gamma + lane, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(mixed + place, mask=live, other=0.0).to(tl.float32) * scale[None, :]
    s += tl.load(x + place, mask=live, other=0.0).to(tl.float32)
    kept = s.to(total.dtype.element_ty)
    tl.store(total + place, kept, mask=live)
    s = kept.to(tl.float32)  # the norm is of what the next block adds to
    mean = tl.sum(s, 1) / width
    away = tl.where(live, s - mean[:, None], 0.0)
    spread = tl.rsqrt(tl.sum(away * away, 1) / width + eps)
    w = tl.load(weight + lane, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + lane, mask=inside, other=0.0).to(tl.float32)
    y = away * spread[:, None] * w[None, :] + b[None, :]
    tl.store(normed + place, y.to(normed.dtype.element_ty), mask=live)


@triton.jit
def quarter(start, live, lane, n: tl.constexpr, width: tl.constexpr):
    """The n-th quarter [R, d/4] of rows of d, in fp32."""
    place = start[:, None] + (n * width + lane)[None, :]
    return tl.load(place, mask=live, other=0.0).to(tl.float32)


@triton.jit
def scaled(x, w, b, lane, n: tl.constexpr, width: tl.constexpr):
    """x·weight + bias of a quarter."""
    weight = tl.load(w + n * width + lane).to(tl.float32)
    return x * weight[None, :] + tl.load(b + n * width + lane).to(tl.float32)[None, :]


@triton.jit
def turn(
    qkv, cos, sin, wq, bq, wk, bk, q, k, count, tokens, heads, eps,
    width: tl.constexpr, padded: tl.constexpr, tile: tl.constexpr, unit: tl.constexpr,
):  # fmt: skip
    """q and k of rows [q | k | v]: SiLU, turned, of length 1; or normalised, then turned.

    A program owns ``tile`` tokens and all heads of q (part 0) or k (part 1). ``width`` is d/4.
    """
    part = tl.program_id(1)
    index = tl.arange(0, tile * padded)
    token, head = tl.program_id(0) * tile + index // padded, index % padded
    lane = tl.arange(0, width)
    live = ((token < count) & (head < heads))[:, None]
    start = qkv + token.to(tl.int64) * (12 * heads * width) + (part * heads + head) * (4 * width)
    a, b = quarter(start, live, lane, 0, width), quarter(start, live, lane, 1, width)
    c, d = quarter(start, live, lane, 2, width), quarter(start, live, lane, 3, width)
    if unit:
        a, b = a * tl.sigmoid(a), b * tl.sigmoid(b)
        c, d = c * tl.sigmoid(c), d * tl.sigmoid(d)
        factor = 1.0 / (tl.sqrt(tl.sum(a * a + b * b + c * c + d * d, 1)) + eps)[:, None]
        a, b, c, d = a * factor, b * factor, c * factor, d * factor
    else:
        mean = (tl.sum(a + b + c + d, 1) / (4 * width))[:, None]
        a, b, c, d = a - mean, b - mean, c - mean, d - mean
        spread = tl.rsqrt(tl.sum(a * a + b * b + c * c + d * d, 1) / (4 * width) + eps)[:, None]
        w, o = wq, bq
        if part == 1:
            w, o = wk, bk
        a = scaled(a * spread, w, o, lane, 0, width)
        b = scaled(b * spread, w, o, lane, 1, width)
        c = scaled(c * spread, w, o, lane, 2, width)
        d = scaled(d * spread, w, o, lane, 3, width)
    angle = (token % tokens)[:, None] * (4 * width) + lane[None, :]
    cos_row, sin_row = tl.load(cos + angle), tl.load(sin + angle)
    cos_column, sin_column = tl.load(cos + angle + 2 * width), tl.load(sin + angle + 2 * width)
    out = q
    if part == 1:
        out = k
    place = token.to(tl.int64) * (4 * heads * width) + head * (4 * width)
    place = out + place[:, None] + lane[None, :]
    kind = q.dtype.element_ty
    tl.store(place, (a * cos_row - b * sin_row).to(kind), mask=live)
    tl.store(place + width, (b * cos_row + a * sin_row).to(kind), mask=live)
    tl.store(place + 2 * width, (c * cos_column - d * sin_column).to(kind), mask=live)
    tl.store(place + 3 * width, (d * cos_column + c * sin_column).to(kind), mask=live)


@triton.jit
def convolve(
    rows, weight, out, count, by_row, channels, tokens, special, grid_rows, columns,
    side: tl.constexpr, tile: tl.constexpr, block: tl.constexpr, steps: tl.constexpr,
):  # fmt: skip
    """SiLU of the depthwise side×side convolution over each view's patch grid; the first
    ``special`` tokens of a view have no neighbours and take no part in it.

    A program goes through ``steps`` tiles one after the other: neighbours are still in its cache.
    """
    channel = tl.program_id(1) * block + tl.arange(0, block)
    known = (channel < channels)[None, :]
    for step in range(steps):
        token = (tl.program_id(0) * steps + step) * tile + tl.arange(0, tile)
        live = token < count
        patch = token % tokens - special
        row, column = patch // columns, patch % columns
        start = rows + token.to(tl.int64)[:, None] * by_row + channel[None, :]
        alone = (live & (patch < 0))[:, None] & known
        total = tl.load(start, mask=alone, other=0.0).to(tl.float32)
        for tap in tl.static_range(side * side):
            down, right = tap // side - side // 2, tap % side - side // 2
            r, c = row + down, column + right
            there = live & (patch >= 0) & (r >= 0) & (r < grid_rows) & (c >= 0) & (c < columns)
            near = start + (down * columns + right) * by_row
            value = tl.load(near, mask=there[:, None] & known, other=0.0).to(tl.float32)
            w = tl.load(weight + tap * channels + channel, mask=channel < channels, other=0.0)
            total += value * w.to(tl.float32)[None, :]
        total = total * tl.sigmoid(total)
        place = out + token.to(tl.int64)[:, None] * channels + channel[None, :]
        tl.store(place, total.to(out.dtype.element_ty), mask=live[:, None] & known)
