"""Rotations as matrices and as quaternions (xyzw), angles in radians."""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_to_matrix(
    quaternion: Tensor,  # [..., 4] xyzw, any length but zero
) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions; the length divides out.

    The zero quaternion, which names no rotation, gives the identity with a finite gradient.
    """
    x, y, z, w = quaternion.unbind(-1)
    squared = (quaternion * quaternion).sum(-1)
    twice = 2 / squared.clamp_min(torch.finfo(quaternion.dtype).tiny ** 0.5)
    rows = [
        [1 - twice * (y * y + z * z), twice * (x * y - z * w), twice * (x * z + y * w)],
        [twice * (x * y + z * w), 1 - twice * (x * x + z * z), twice * (y * z - x * w)],
        [twice * (x * z - y * w), twice * (y * z + x * w), 1 - twice * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quaternion(
    rotation: Tensor,  # [..., 3, 3]
) -> Tensor:
    """Unit quaternions [..., 4], xyzw with w ≥ 0, of rotation matrices.

    A rotation determines the rank-one matrix 4·q·qᵀ, linear in the rotation's entries. Its row
    of largest diagonal has length ≥ 2, so normalising it is stable, and so is its gradient.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotation.flatten(-2).unbind(-1)
    xy, xz, yz = m01 + m10, m02 + m20, m12 + m21
    xw, yw, zw = m21 - m12, m02 - m20, m10 - m01
    outer = [
        [1 + m00 - m11 - m22, xy, xz, xw],
        [xy, 1 - m00 + m11 - m22, yz, yw],
        [xz, yz, 1 - m00 - m11 + m22, zw],
        [xw, yw, zw, 1 + m00 + m11 + m22],
    ]
    stacked = torch.stack([torch.stack(row, dim=-1) for row in outer], dim=-2)
    largest = stacked.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    row = stacked.gather(-2, index).squeeze(-2)
    quaternion = row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def axis_angle_to_matrix(
    axis: Tensor,  # [..., 3] any length but zero
    angle: Tensor,  # [...] radians
) -> Tensor:
    """Rotation matrices [..., 3, 3] that turn by ``angle`` about ``axis`` (right hand)."""
    unit = axis / torch.linalg.vector_norm(axis, dim=-1, keepdim=True)
    half = angle[..., None] / 2
    return quaternion_to_matrix(torch.cat([unit * half.sin(), half.cos()], dim=-1))


def rotation_angle(
    rotation: Tensor,  # [..., 3, 3]
) -> Tensor:
    """Angle [...] of rotation matrices, in [0, π] radians.

    From sine and cosine together: the arc cosine alone loses half the digits near 0 and π.
    """
    m = rotation
    twice_sine = torch.stack(
        [
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        dim=-1,
    )
    twice_cosine = m.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    return torch.atan2(torch.linalg.vector_norm(twice_sine, dim=-1), twice_cosine)


def angle_between(
    a: Tensor,  # [..., 3]
    b: Tensor,  # [..., 3]
) -> Tensor:
    """Angle [...] between directions in [0, π] radians; 0 where one of them is zero."""
    cross = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    return torch.atan2(cross, (a * b).sum(-1))


def nearest_rotation(
    matrix: Tensor,  # [..., 3, 3]
) -> Tensor:
    """The orthogonal matrix [..., 3, 3] closest to one that is nearly a rotation, in its dtype.

    Inverting a pose transposes its rotation: what float32 or a file's few digits leave of R·Rᵀ − 1
    moves a centre by that share of its distance from the origin.
    """
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def random_rotation(
    shape: tuple[int, ...],
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rotation matrices [*shape, 3, 3], uniform over all rotations, on the generator's device."""
    quaternion = torch.randn(*shape, 4, generator=generator, dtype=dtype, device=generator.device)
    return quaternion_to_matrix(quaternion)
