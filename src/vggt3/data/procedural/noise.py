"""Noise from integer hashing: the same number for the same place, from every camera.

All in int32 with wrap-around, the arithmetic that every device shares, so that pictures agree
between devices. Triton's ``kernel.py`` repeats these formulas.
"""

from __future__ import annotations

import torch
from torch import Tensor

PRIME_X, PRIME_Y, PRIME_Z, PRIME_SEED = 73856093, 19349663, 83492791, 50331653
MIX = 739982445
TO_UNIT = 1.0 / 65536.0


def to_unit(
    code: Tensor,  # [...] int32
) -> Tensor:
    """Hash codes, mixed, as float32 in [0, 1)."""
    code = (code ^ (code >> 13)) * MIX
    code = (code ^ (code >> 16)) & 0xFFFF
    return code.to(torch.float32) * TO_UNIT


def cell_code(
    x: Tensor,  # [...] int32
    y: Tensor,  # [...] int32
    seed: Tensor,  # [...] int32
) -> Tensor:
    """Hash code [...] int32 of an integer cell; ``to_unit(code + i)`` are independent draws."""
    code = (x * PRIME_X) ^ (y * PRIME_Y) ^ (seed * PRIME_SEED)
    code = (code ^ (code >> 13)) * MIX
    return code ^ (code >> 16)


def value_noise(
    x: Tensor,  # [...] float32
    y: Tensor,  # [...]
    z: Tensor,  # [...]
    seed: Tensor,  # [...] int32
) -> Tensor:
    """Smooth noise [...] in [−1, 1] with one lattice point a unit."""
    x0, y0, z0 = x.floor(), y.floor(), z.floor()
    u, v, w = _fade(x - x0), _fade(y - y0), _fade(z - z0)
    hx = x0.to(torch.int32) * PRIME_X
    hy = y0.to(torch.int32) * PRIME_Y
    hz = (z0.to(torch.int32) * PRIME_Z, (z0.to(torch.int32) + 1) * PRIME_Z)
    corner = seed * PRIME_SEED
    columns = (hx ^ hy, (hx + PRIME_X) ^ hy, hx ^ (hy + PRIME_Y), (hx + PRIME_X) ^ (hy + PRIME_Y))
    planes = []
    for h in hz:
        layer = h ^ corner
        a, b, c, d = (to_unit(column ^ layer) for column in columns)
        low = torch.lerp(a, b, u)
        planes.append(torch.lerp(low, torch.lerp(c, d, u), v))
    return torch.lerp(planes[0], planes[1], w).mul_(2).sub_(1)


def _fade(t: Tensor) -> Tensor:
    return t * t * (3 - 2 * t)
