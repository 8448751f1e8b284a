"""Triton: where rays end, a program a tile of 16 × 16 pixels of one view.

First each tile lists the solids that its rays may meet (one lane a solid), then the tile's rays
(one lane a ray) visit only those. The formulas are ``trace.py``'s and ``shadow.py``'s.
"""

# Blocks and pointers have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from vggt3.data.procedural import trace as reference

SHELL_SLOTS = tl.constexpr(3)
NEAR, PARALLEL = tl.constexpr(reference.NEAR), tl.constexpr(reference.PARALLEL)
TOUCH = tl.constexpr(1e-4)


@triton.jit
def box_interval(ox, oy, oz, dx, dy, dz):
    """(near, far) of rays in the cube [−1, 1]³."""
    ix, iy, iz = 1.0 / (dx + PARALLEL), 1.0 / (dy + PARALLEL), 1.0 / (dz + PARALLEL)
    mx, my, mz = -ox * ix, -oy * iy, -oz * iz
    rx, ry, rz = tl.abs(ix), tl.abs(iy), tl.abs(iz)
    near = tl.maximum(tl.maximum(mx - rx, my - ry), mz - rz)
    far = tl.minimum(tl.minimum(mx + rx, my + ry), mz + rz)
    return near, far


@triton.jit
def ball_interval(ox, oy, oz, dx, dy, dz):
    """(near, far) of rays in the unit ball."""
    inverse = 1.0 / (dx * dx + dy * dy + dz * dz)
    middle = -(ox * dx + oy * dy + oz * dz) * inverse
    px, py, pz = ox + middle * dx, oy + middle * dy, oz + middle * dz
    inside = (1.0 - px * px - py * py - pz * pz) * inverse
    reach = tl.sqrt(tl.maximum(inside, 0.0))
    # A miss is an empty interval.
    far = tl.where(inside > 0, middle + reach, middle - 1.0)
    return middle - reach, far


@triton.jit
def cylinder_interval(ox, oy, oz, dx, dy, dz):
    """(near, far) of rays in the upright unit cylinder."""
    inverse = 1.0 / tl.maximum(dx * dx + dy * dy, 1e-20)
    middle = -(ox * dx + oy * dy) * inverse
    px, py = ox + middle * dx, oy + middle * dy
    inside = (1.0 - px * px - py * py) * inverse
    reach = tl.sqrt(tl.maximum(inside, 0.0))
    upright = 1.0 / (dz + PARALLEL)
    mid_z, reach_z = -oz * upright, tl.abs(upright)
    near = tl.maximum(middle - reach, mid_z - reach_z)
    far = tl.minimum(middle + reach, mid_z + reach_z)
    return near, tl.where(inside > 0, far, near - 1.0)


@triton.jit
def interval(kind: tl.constexpr, ox, oy, oz, dx, dy, dz):
    """(near, far) of rays in the unit shape of a kind of solid."""
    if kind == 1:
        near, far = box_interval(ox, oy, oz, dx, dy, dz)
    elif kind == 2:
        near, far = ball_interval(ox, oy, oz, dx, dy, dz)
    else:
        near, far = cylinder_interval(ox, oy, oz, dx, dy, dz)
    return near, far


@triton.jit
def turned(matrix, x, y, z):
    """The 3 × 3 matrix at a pointer times a vector."""
    a = tl.load(matrix) * x + tl.load(matrix + 1) * y + tl.load(matrix + 2) * z
    b = tl.load(matrix + 3) * x + tl.load(matrix + 4) * y + tl.load(matrix + 5) * z
    c = tl.load(matrix + 6) * x + tl.load(matrix + 7) * y + tl.load(matrix + 8) * z
    return a, b, c


@triton.jit
def walk(end, slot, number: tl.constexpr, near, far):
    """One step on through a shell, for rays that have come as far as ``end``."""
    further = (near <= end + TOUCH) & (far > end)
    return tl.where(further, far, end), tl.where(further, number, slot)


@triton.jit
def walk_out(near0, far0, near1, far1, near2, far2):
    """Where the union of the three shells is left, and through which."""
    end = tl.zeros_like(near0)
    slot = tl.zeros_like(near0).to(tl.int32)
    for _ in tl.static_range(3):
        end, slot = walk(end, slot, 0, near0, far0)
        end, slot = walk(end, slot, 1, near1, far1)
        end, slot = walk(end, slot, 2, near2, far2)
    return end, slot


@triton.jit
def view_interval(turn, origin, x, y):
    """A shell's interval along camera directions (x, y, 1)."""
    dx, dy, dz = turned(turn, x, y, 1.0)
    return box_interval(tl.load(origin), tl.load(origin + 1), tl.load(origin + 2), dx, dy, dz)


@triton.jit
def nearest_of(kind: tl.constexpr, best, index, x, y, turn, origin, listed, first, last):
    """The nearest hit so far and those of the listed solids of one kind."""
    for place in range(first, last):
        k = tl.load(listed + place)
        dx, dy, dz = turned(turn + 9 * k, x, y, 1.0)
        o = origin + 3 * k
        near, far = interval(
            kind, tl.load(o), tl.load(o + 1), tl.load(o + 2), dx, dy, dz
        )  # fmt: skip
        hit = (near < far) & (near > NEAR) & (near < best)
        best = tl.where(hit, near, best)
        index = tl.where(hit, k, index)
    return best, index


@triton.jit
def keep(flags, lanes, listed, counts, ball: tl.constexpr, cylinder: tl.constexpr):
    """Write the flagged lanes in order, and how many there are of each kind."""
    marks = flags.to(tl.int32)
    place = tl.cumsum(marks, 0) - 1
    tl.store(listed + place, lanes, mask=flags)
    tl.store(counts, tl.sum(tl.where(lanes < ball, marks, 0), 0))
    tl.store(counts + 1, tl.sum(tl.where((lanes >= ball) & (lanes < cylinder), marks, 0), 0))
    tl.store(counts + 2, tl.sum(tl.where(lanes >= cylinder, marks, 0), 0))


@triton.jit
def corner_cosine(x, y, ax, ay, az):
    """Cosine between the tile's axis and a corner's direction."""
    return (x * ax + y * ay + az) / tl.sqrt(x * x + y * y + 1.0)


@triton.jit
def list_for_views(
    pinhole, seen, reach, listed, counts, wide, solids,
    ball: tl.constexpr, cylinder: tl.constexpr, tile: tl.constexpr, lanes_of: tl.constexpr,
):  # fmt: skip
    """List for each tile of each view the solids whose ball touches the tile's cone of rays."""
    view, number = tl.program_id(0), tl.program_id(1)
    across = tl.cdiv(wide, tile)
    cam = pinhole + 4 * view
    fx, fy, cx, cy = tl.load(cam), tl.load(cam + 1), tl.load(cam + 2), tl.load(cam + 3)
    left = ((number % across) * tile - cx) / fx
    top = ((number // across) * tile - cy) / fy
    right, bottom = left + tile / fx, top + tile / fy
    ax, ay = (left + right) / 2, (top + bottom) / 2
    norm = 1.0 / tl.sqrt(ax * ax + ay * ay + 1.0)
    ax, ay, az = ax * norm, ay * norm, norm
    cosine = tl.minimum(corner_cosine(left, top, ax, ay, az),
                        corner_cosine(right, top, ax, ay, az))  # fmt: skip
    cosine = tl.minimum(cosine, corner_cosine(left, bottom, ax, ay, az))
    cosine = tl.minimum(cosine, corner_cosine(right, bottom, ax, ay, az))
    sine = tl.sqrt(tl.maximum(1.0 - cosine * cosine, 0.0))

    k = tl.arange(0, lanes_of)
    known = (k >= SHELL_SLOTS) & (k < solids)
    at = seen + 3 * (view * solids + k)
    x = tl.load(at, mask=known, other=0.0)
    y = tl.load(at + 1, mask=known, other=0.0)
    z = tl.load(at + 2, mask=known, other=0.0)
    size = tl.load(reach + view * solids + k, mask=known, other=-1.0)
    along = x * ax + y * ay + z * az
    off = tl.sqrt(tl.maximum(x * x + y * y + z * z - along * along, 0.0))
    gap = off * cosine - along * sine
    near = (gap <= size * 1.001 + 1e-4) & (along > -size) & (size > 0) & known
    tiles = tl.num_programs(1)
    place = view * tiles + number
    keep(near, k, listed + place * solids, counts + 3 * place, ball, cylinder)


@triton.jit
def list_for_lights(
    lights, middle, reach, bounds, listed, counts, solids,
    ball: tl.constexpr, cylinder: tl.constexpr, light_count: tl.constexpr,
    light_columns: tl.constexpr, lanes_of: tl.constexpr,
):  # fmt: skip
    """List for each tile and light the solids near the bundle of shadow rays to the tile."""
    view, number, which = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    place = view * tl.num_programs(1) + number
    light = lights + (view * light_count + which) * light_columns
    lx, ly, lz = tl.load(light), tl.load(light + 1), tl.load(light + 2)
    box = bounds + 6 * place
    x0, y0, z0 = tl.load(box), tl.load(box + 1), tl.load(box + 2)
    x1, y1, z1 = tl.load(box + 3), tl.load(box + 4), tl.load(box + 5)
    mx, my, mz = (x0 + x1) / 2 - lx, (y0 + y1) / 2 - ly, (z0 + z1) / 2 - lz
    wx, wy, wz = (x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2
    radius = tl.sqrt(wx * wx + wy * wy + wz * wz) + 4e-3
    length = tl.maximum(tl.sqrt(mx * mx + my * my + mz * mz), 1e-6)

    k = tl.arange(0, lanes_of)
    known = (k >= SHELL_SLOTS) & (k < solids)
    at = middle + 3 * (view * solids + k)
    sx = tl.load(at, mask=known, other=0.0) - lx
    sy = tl.load(at + 1, mask=known, other=0.0) - ly
    sz = tl.load(at + 2, mask=known, other=0.0) - lz
    size = tl.load(reach + view * solids + k, mask=known, other=-1.0)
    along = (sx * mx + sy * my + sz * mz) / length
    off = tl.sqrt(tl.maximum(sx * sx + sy * sy + sz * sz - along * along, 0.0))
    slope = tl.sqrt(tl.maximum(length * length - radius * radius, 1e-12))
    share = tl.minimum(tl.maximum((along + off * radius / slope) / length, 0.0), 1.0)
    gap = share * length - along
    gap = tl.sqrt(off * off + gap * gap) - share * radius
    # The samples' places on the lamp lie within its radius.
    margin = size * 1.001 + 1e-4 + tl.load(light + 8)
    # A light inside the tile's ball meets all; one without shadows, or an empty tile, none.
    margin += tl.where(radius >= length, 1e9, 0.0)
    margin += tl.where(tl.load(light + 7) > 0, 0.0, -2e9) + tl.where(x1 >= x0, 0.0, -2e9)
    row = place * light_count + which
    near = (gap <= margin) & known & (size > 0)
    keep(near, k, listed + row * solids, counts + 3 * row, ball, cylinder)


@triton.jit
def trace_tiles(
    pinhole, turn, origin, rotation, centre, is_open, places, listed, counts,
    depth, slots, bounds, high, wide, solids, samples, tile: tl.constexpr,
):  # fmt: skip
    """Depth and slot [S, F, H, W] of all samples, and the box around what each tile sees."""
    view, number = tl.program_id(0), tl.program_id(1)
    across = tl.cdiv(wide, tile)
    lane = tl.arange(0, tile * tile)
    column = (number % across) * tile + lane % tile
    line = (number // across) * tile + lane // tile
    within = (column < wide) & (line < high)
    cam = pinhole + 4 * view
    fx, fy, cx, cy = tl.load(cam), tl.load(cam + 1), tl.load(cam + 2), tl.load(cam + 3)
    turn, origin = turn + 9 * solids * view, origin + 3 * solids * view
    row = view * tl.num_programs(1) + number
    listed, counts = listed + row * solids, counts + 3 * row
    balls = tl.load(counts)
    cylinders = balls + tl.load(counts + 1)
    last = cylinders + tl.load(counts + 2)
    low_x = tl.full([tile * tile], 1e9, tl.float32)
    low_y, low_z, high_x, high_y, high_z = low_x, low_x, -low_x, -low_x, -low_x
    # Under an open sky the shell is no surface.
    first_solid = tl.where(tl.load(is_open + view) > 0, SHELL_SLOTS, 0)
    for sample in range(samples):
        x = (column + tl.load(places + 2 * sample) - cx) / fx
        y = (line + tl.load(places + 2 * sample + 1) - cy) / fy
        near0, far0 = view_interval(turn, origin, x, y)
        near1, far1 = view_interval(turn + 9, origin + 3, x, y)
        near2, far2 = view_interval(turn + 18, origin + 6, x, y)
        best, index = walk_out(near0, far0, near1, far1, near2, far2)
        best, index = nearest_of(1, best, index, x, y, turn, origin, listed, 0, balls)
        best, index = nearest_of(2, best, index, x, y, turn, origin, listed, balls, cylinders)
        best, index = nearest_of(3, best, index, x, y, turn, origin, listed, cylinders, last)
        at = ((sample * tl.num_programs(0) + view) * high + line) * wide + column
        tl.store(depth + at, best, mask=within)
        tl.store(slots + at, index, mask=within)
        wx, wy, wz = turned(rotation + 9 * view, x, y, 1.0)
        wx = tl.load(centre + 3 * view) + best * wx
        wy = tl.load(centre + 3 * view + 1) + best * wy
        wz = tl.load(centre + 3 * view + 2) + best * wz
        solid = within & (index >= first_solid)
        low_x = tl.where(solid, tl.minimum(low_x, wx), low_x)
        low_y = tl.where(solid, tl.minimum(low_y, wy), low_y)
        low_z = tl.where(solid, tl.minimum(low_z, wz), low_z)
        high_x = tl.where(solid, tl.maximum(high_x, wx), high_x)
        high_y = tl.where(solid, tl.maximum(high_y, wy), high_y)
        high_z = tl.where(solid, tl.maximum(high_z, wz), high_z)
    box = bounds + 6 * row
    tl.store(box, tl.min(low_x, 0))
    tl.store(box + 1, tl.min(low_y, 0))
    tl.store(box + 2, tl.min(low_z, 0))
    tl.store(box + 3, tl.max(high_x, 0))
    tl.store(box + 4, tl.max(high_y, 0))
    tl.store(box + 5, tl.max(high_z, 0))
