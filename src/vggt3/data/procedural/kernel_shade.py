"""Triton: the light that reaches the camera from what each ray met (``render.py``'s formulas)."""

# Blocks and pointers have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from vggt3.data.procedural import render as reference
from vggt3.data.procedural import shadow
from vggt3.data.procedural.kernel_texture import albedo, blend, unit, value_noise
from vggt3.data.procedural.kernel_trace import (
    NEAR,
    SHELL_SLOTS,
    box_interval,
    interval,
    turned,
    walk_out,
)
from vggt3.data.procedural.materials import Column

REACHED, SKIN = tl.constexpr(shadow.REACHED), tl.constexpr(reference.SKIN)
SPECULAR, GLOSS = tl.constexpr(int(Column.SPECULAR)), tl.constexpr(int(Column.GLOSS))
EMISSION = tl.constexpr(int(Column.EMISSION))
LEAST_FOOTPRINT = tl.constexpr(reference.LEAST_FOOTPRINT)


@triton.jit
def gradient(x, y, z, is_ball, is_cylinder):
    """Outward direction in unit space of the shapes' surfaces."""
    ax, ay, az = tl.abs(x), tl.abs(y), tl.abs(z)
    on_x = (ax >= ay) & (ax >= az)
    on_y = (ay >= az) & (on_x == 0)
    on_z = (on_x == 0) & (on_y == 0)
    sx, sy = tl.where(x > 0, 1.0, -1.0), tl.where(y > 0, 1.0, -1.0)
    sz = tl.where(z > 0, 1.0, -1.0)
    gx, gy = tl.where(on_x, sx, 0.0), tl.where(on_y, sy, 0.0)
    gz = tl.where(on_z, sz, 0.0)
    cap = az > tl.sqrt(x * x + y * y)
    gx = tl.where(is_cylinder, tl.where(cap, 0.0, x), gx)
    gy = tl.where(is_cylinder, tl.where(cap, 0.0, y), gy)
    gz = tl.where(is_cylinder, tl.where(cap, sz, 0.0), gz)
    return tl.where(is_ball, x, gx), tl.where(is_ball, y, gy), tl.where(is_ball, z, gz)


@triton.jit
def shadow_interval(kind: tl.constexpr, affine, lx, ly, lz, wx, wy, wz):
    """A solid's interval on the way (wx, wy, wz) that starts at the light."""
    a0, a1, a2 = tl.load(affine), tl.load(affine + 1), tl.load(affine + 2)
    b0, b1, b2 = tl.load(affine + 4), tl.load(affine + 5), tl.load(affine + 6)
    c0, c1, c2 = tl.load(affine + 8), tl.load(affine + 9), tl.load(affine + 10)
    ox = a0 * lx + a1 * ly + a2 * lz + tl.load(affine + 3)
    oy = b0 * lx + b1 * ly + b2 * lz + tl.load(affine + 7)
    oz = c0 * lx + c1 * ly + c2 * lz + tl.load(affine + 11)
    dx = a0 * wx + a1 * wy + a2 * wz
    dy = b0 * wx + b1 * wy + b2 * wz
    dz = c0 * wx + c1 * wy + c2 * wz
    if kind == 0:
        near, far = box_interval(ox, oy, oz, dx, dy, dz)
        near, far = 1.0 - far, 1.0 - near
    else:
        near, far = interval(kind, ox, oy, oz, dx, dy, dz)
    return near, far


@triton.jit
def blocked_by(kind: tl.constexpr, dark, affine, listed, first, last, lx, ly, lz, wx, wy, wz):
    """Whether one of the listed solids of a kind stands in the way as well, 0 or 1."""
    for place in range(first, last):
        k = tl.load(listed + place)
        near, far = shadow_interval(kind, affine + 12 * k, lx, ly, lz, wx, wy, wz)
        dark = dark | ((near < far) & (near < REACHED) & (near > NEAR)).to(tl.int32)
    return dark


@triton.jit
def is_dark(affine, listed, counts, window, lx, ly, lz, wx, wy, wz):
    """Whether a solid or a wall stands on the way from the light, 0 or 1."""
    near0, far0 = shadow_interval(0, affine, lx, ly, lz, wx, wy, wz)
    near1, far1 = shadow_interval(0, affine + 12, lx, ly, lz, wx, wy, wz)
    near2, far2 = shadow_interval(0, affine + 24, lx, ly, lz, wx, wy, wz)
    end, left_by = walk_out(near0, far0, near1, far1, near2, far2)
    dark = ((end < REACHED) & (left_by != window)).to(tl.int32)
    balls = tl.load(counts)
    cylinders = balls + tl.load(counts + 1)
    last = cylinders + tl.load(counts + 2)
    dark = blocked_by(1, dark, affine, listed, 0, balls, lx, ly, lz, wx, wy, wz)
    dark = blocked_by(2, dark, affine, listed, balls, cylinders, lx, ly, lz, wx, wy, wz)
    return blocked_by(3, dark, affine, listed, cylinders, last, lx, ly, lz, wx, wy, wz)


@triton.jit
def one_light(light, lamp, affine, listed, counts, px, py, pz, nx, ny, nz, vx, vy, vz, gloss):
    """What arrives from a light, without its colour: strength and highlight."""
    radius = tl.load(light + 8)
    lx = tl.load(light) + radius * tl.load(lamp)
    ly = tl.load(light + 1) + radius * tl.load(lamp + 1)
    lz = tl.load(light + 2) + radius * tl.load(lamp + 2)
    tx, ty, tz = lx - px, ly - py, lz - pz
    distance = tl.sqrt(tx * tx + ty * ty + tz * tz)
    apart = tl.maximum(distance, 1e-6)
    tx, ty, tz = tx / apart, ty / apart, tz / apart
    share = distance / tl.load(light + 6)
    strength = tl.maximum(nx * tx + ny * ty + nz * tz, 0.0) * 2.0 / (1.0 + share * share)
    if tl.load(light + 7) > 0:
        window = tl.load(light + 9).to(tl.int32)
        wx, wy, wz = px + SKIN * nx - lx, py + SKIN * ny - ly, pz + SKIN * nz - lz
        dark = is_dark(affine, listed, counts, window, lx, ly, lz, wx, wy, wz)
        strength = tl.where(dark > 0, 0.0, strength)
    hx, hy, hz = tx - vx, ty - vy, tz - vz
    norm = tl.maximum(tl.sqrt(hx * hx + hy * hy + hz * hz), 1e-6)
    facing = tl.maximum((nx * hx + ny * hy + nz * hz) / norm, 1e-4)
    return strength, strength * tl.exp2(gloss * tl.log2(facing))


@triton.jit
def openness(half, middle, px, py, pz, nx, ny, nz):
    """Share of the soft light that corners along the floor and the walls leave."""
    share = 1.0 - 0.4 * tl.exp(-4.0 * tl.maximum(pz, 0.0)) * (1.0 - tl.maximum(nz, 0.0))
    gap = tl.abs(tl.load(half) - tl.abs(px - tl.load(middle)))
    share = share * (1.0 - 0.35 * tl.exp(-3.0 * gap) * (1.0 - tl.abs(nx)))
    gap = tl.abs(tl.load(half + 1) - tl.abs(py - tl.load(middle + 1)))
    return share * (1.0 - 0.35 * tl.exp(-3.0 * gap) * (1.0 - tl.abs(ny)))


@triton.jit
def sky_colour(sky, seed, dx, dy, dz):
    """Radiance of the sky along unit directions."""
    rise = unit(dz)
    bent = tl.sqrt(rise)
    spread = 1.5 / (rise + 0.15)
    x, y = dx * spread, dy * spread
    flat = tl.zeros_like(x)
    cloud = 0.6 * value_noise(x, y, flat, seed)
    cloud += 0.3 * value_noise(x * 2.3, y * 2.3, flat + 7.0, seed + 1)
    cloud += 0.15 * value_noise(x * 5.29, y * 5.29, flat + 14.0, seed + 2)
    cover = unit((cloud + tl.load(sky + 7) - 0.5) * 2.0) * unit(rise * 4.0)
    red = blend(blend(tl.load(sky + 4), tl.load(sky + 1), bent), 0.9, cover)
    green = blend(blend(tl.load(sky + 5), tl.load(sky + 2), bent), 0.9, cover)
    return red, green, blend(blend(tl.load(sky + 6), tl.load(sky + 3), bent), 0.9, cover)


@triton.jit
def material_at(materials, faces, k, gx, gy, gz, half_x, half_y, half_z, columns):
    """The pointer to the material's row, the face's axis, and its number 0…5."""
    qx, qy, qz = tl.abs(gx) / half_x, tl.abs(gy) / half_y, tl.abs(gz) / half_z
    axis = tl.where((qx >= qy) & (qx >= qz), 0, tl.where(qy >= qz, 1, 2))
    along = tl.where(axis == 0, gx, tl.where(axis == 1, gy, gz))
    positive = (along > 0).to(tl.int32)
    wanted = tl.where((axis == 2) & (positive == 0), 3, axis)
    number = tl.load(faces + 4 * k + wanted).to(tl.int32)
    return materials + number * columns, axis, 2 * axis + positive


@triton.jit
def shade_rays(
    pinhole, rotation, centre, affine, half, faces, materials, texels, lights, ambient, sky,
    seed, middle, lamp, listed, counts, x, y, t, k, solids, ball, cylinder,
    columns: tl.constexpr, light_count: tl.constexpr, light_columns: tl.constexpr,
    has_bank: tl.constexpr,
):  # fmt: skip
    """Radiance of a block of rays; every pointer is already the view's own."""
    dx, dy, dz = turned(rotation, x, y, 1.0)
    px = tl.load(centre) + t * dx
    py, pz = tl.load(centre + 1) + t * dy, tl.load(centre + 2) + t * dz
    length = tl.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx / length, dy / length, dz / length
    a = affine + 12 * k
    a0, a1, a2 = tl.load(a), tl.load(a + 1), tl.load(a + 2)
    b0, b1, b2 = tl.load(a + 4), tl.load(a + 5), tl.load(a + 6)
    c0, c1, c2 = tl.load(a + 8), tl.load(a + 9), tl.load(a + 10)
    qx = a0 * px + a1 * py + a2 * pz + tl.load(a + 3)
    qy = b0 * px + b1 * py + b2 * pz + tl.load(a + 7)
    qz = c0 * px + c1 * py + c2 * pz + tl.load(a + 11)
    gx, gy, gz = gradient(qx, qy, qz, (k >= ball) & (k < cylinder), k >= cylinder)
    nx, ny = a0 * gx + b0 * gy + c0 * gz, a1 * gx + b1 * gy + c1 * gz
    nz = a2 * gx + b2 * gy + c2 * gz
    norm = tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    nx, ny, nz = nx / norm, ny / norm, nz / norm
    facing = nx * dx + ny * dy + nz * dz
    sign = tl.where(facing > 0, -1.0, 1.0)
    nx, ny, nz = nx * sign, ny * sign, nz * sign
    hx, hy = tl.load(half + 3 * k), tl.load(half + 3 * k + 1)
    hz = tl.load(half + 3 * k + 2)
    row, axis, face = material_at(materials, faces, k, gx, gy, gz, hx, hy, hz, columns)
    footprint = t * length / tl.load(pinhole) / tl.maximum(tl.abs(facing), 0.15)
    footprint = tl.maximum(footprint, LEAST_FOOTPRINT)
    red, green, blue = albedo(
        row, texels, qx * hx, qy * hy, qz * hz, axis, face, footprint, has_bank
    )
    up = 0.5 + 0.5 * nz
    free = openness(half, middle, px, py, pz, nx, ny, nz)
    glow = tl.load(row + EMISSION)
    lit_r = blend(tl.load(ambient + 3), tl.load(ambient), up) * free + glow
    lit_g = blend(tl.load(ambient + 4), tl.load(ambient + 1), up) * free + glow
    lit_b = blend(tl.load(ambient + 5), tl.load(ambient + 2), up) * free + glow
    red_out, green_out, blue_out = red * lit_r, green * lit_g, blue * lit_b
    specular, gloss = tl.load(row + SPECULAR), tl.load(row + GLOSS)
    for which in tl.static_range(light_count):
        light = lights + which * light_columns
        strength, shine = one_light(
            light, lamp, affine, listed + which * solids, counts + 3 * which,
            px, py, pz, nx, ny, nz, dx, dy, dz, gloss,
        )  # fmt: skip
        red_out += tl.load(light + 3) * (red * strength + specular * shine)
        green_out += tl.load(light + 4) * (green * strength + specular * shine)
        blue_out += tl.load(light + 5) * (blue * strength + specular * shine)
    in_sky = k < tl.where(tl.load(sky) > 0, SHELL_SLOTS, 0)
    above_r, above_g, above_b = sky_colour(sky, seed, dx, dy, dz)
    red_out, green_out = tl.where(in_sky, above_r, red_out), tl.where(in_sky, above_g, green_out)
    return red_out, green_out, tl.where(in_sky, above_b, blue_out)


@triton.jit
def shade_tiles(
    scene_of, pinhole, rotation, centre, affine, half, faces, materials, texels, lights,
    ambient, sky, seeds, middle, places, lamps, listed, counts, depth, slots, radiance,
    high, wide, solids, material_count, samples, ball, cylinder,
    columns: tl.constexpr, light_count: tl.constexpr, light_columns: tl.constexpr,
    has_bank: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Mean radiance [F, 3, H, W] of the first ``samples`` rays of each pixel."""
    view, number = tl.program_id(0), tl.program_id(1)
    scene = tl.load(scene_of + view)
    across = tl.cdiv(wide, tile)
    lane = tl.arange(0, tile * tile)
    column = (number % across) * tile + lane % tile
    line = (number // across) * tile + lane // tile
    within = (column < wide) & (line < high)
    cam = pinhole + 4 * view
    fx, fy, cx, cy = tl.load(cam), tl.load(cam + 1), tl.load(cam + 2), tl.load(cam + 3)
    place = (view * tl.num_programs(1) + number) * light_count
    red = tl.zeros([tile * tile], tl.float32)
    green, blue = red, red
    for sample in range(samples):
        x = (column + tl.load(places + 2 * sample) - cx) / fx
        y = (line + tl.load(places + 2 * sample + 1) - cy) / fy
        at = ((sample * tl.num_programs(0) + view) * high + line) * wide + column
        t = tl.load(depth + at, mask=within, other=1.0)
        k = tl.load(slots + at, mask=within, other=0)
        r, g, b = shade_rays(
            cam, rotation + 9 * view, centre + 3 * view, affine + 12 * solids * scene,
            half + 3 * solids * scene, faces + 4 * solids * scene,
            materials + material_count * columns * scene, texels,
            lights + light_count * light_columns * scene, ambient + 6 * scene, sky + 8 * scene,
            tl.load(seeds + scene).to(tl.int32), middle + 3 * solids * view, lamps + 3 * sample,
            listed + place * solids, counts + 3 * place, x, y, t, k, solids, ball, cylinder,
            columns, light_count, light_columns, has_bank,
        )  # fmt: skip
        red, green, blue = red + r, green + g, blue + b
    out = radiance + (view * 3 * high + line) * wide + column
    tl.store(out, red / samples, mask=within)
    tl.store(out + high * wide, green / samples, mask=within)
    tl.store(out + 2 * high * wide, blue / samples, mask=within)
