"""Rotations: invariants first, then round trips, then derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from vggt3.geometry.rotation import (
    angle_between,
    axis_angle_to_matrix,
    matrix_to_quaternion,
    quaternion_to_matrix,
    random_rotation,
    rotation_angle,
)

HALF = math.sqrt(0.5)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_matrices_are_rotations(generator: torch.Generator) -> None:
    rotation = random_rotation((500,), generator, torch.float64)
    product = rotation @ rotation.transpose(-1, -2)
    torch.testing.assert_close(product, torch.eye(3).double().expand(500, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(500).double())


def test_length_and_sign_of_the_quaternion_divide_out(generator: torch.Generator) -> None:
    quaternion = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    rotation = quaternion_to_matrix(quaternion)
    torch.testing.assert_close(quaternion_to_matrix(-3.7 * quaternion), rotation)


def test_round_trip_has_unit_length_and_positive_w(generator: torch.Generator) -> None:
    quaternion = torch.randn(1000, 4, generator=generator, dtype=torch.float64)
    back = matrix_to_quaternion(quaternion_to_matrix(quaternion))
    unit = quaternion / quaternion.norm(dim=-1, keepdim=True)
    unit = torch.where(unit[:, 3:] < 0, -unit, unit)
    torch.testing.assert_close(back, unit, atol=1e-12, rtol=0)
    assert (back[:, 3] >= 0).all()


def test_round_trip_in_float32_near_half_turns(generator: torch.Generator) -> None:
    axis = torch.randn(1000, 3, generator=generator)
    near_pi = math.pi - 1e-3 * torch.rand(1000, generator=generator)
    rotation = axis_angle_to_matrix(axis, near_pi)
    back = quaternion_to_matrix(matrix_to_quaternion(rotation))
    torch.testing.assert_close(back, rotation, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("quaternion", "matrix"),
    [
        ([0, 0, 0, 1], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ([HALF, 0, 0, HALF], [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        ([0, HALF, 0, HALF], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
        ([0, 0, HALF, HALF], [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
        ([1, 0, 0, 0], [[1, 0, 0], [0, -1, 0], [0, 0, -1]]),
        ([0, 0, 1, 0], [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]),
    ],
)
def test_known_rotations(quaternion: list[float], matrix: list[list[float]]) -> None:
    got = quaternion_to_matrix(torch.tensor(quaternion, dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor(matrix, dtype=torch.float64))
    back = matrix_to_quaternion(torch.tensor(matrix, dtype=torch.float64))
    torch.testing.assert_close(back, torch.tensor(quaternion, dtype=torch.float64))


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 3.0, math.pi - 1e-6, math.pi])
def test_angle_is_exact_from_zero_to_pi(angle: float, generator: torch.Generator) -> None:
    axis = torch.randn(20, 3, generator=generator)
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 5e-7)):
        wanted = torch.full((20,), angle, dtype=dtype)
        got = rotation_angle(axis_angle_to_matrix(axis.to(dtype), wanted))
        torch.testing.assert_close(got, wanted, atol=tolerance, rtol=0)


def test_angle_between_directions() -> None:
    a = torch.tensor([[1.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 0, 0], [0, 0, 0]])
    b = torch.tensor([[0.0, 5, 0], [-1, 0, 0], [3, 0, 0], [1, 1, 0], [1, 0, 0]])
    wanted = torch.tensor([math.pi / 2, math.pi, 0, math.pi / 4, 0])
    torch.testing.assert_close(angle_between(a, b), wanted)


def test_gradients(generator: torch.Generator) -> None:
    quaternion = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    quaternion.requires_grad_()
    rotation = random_rotation((6,), generator, torch.float64).requires_grad_()
    assert gradcheck(quaternion_to_matrix, quaternion)
    assert gradcheck(matrix_to_quaternion, rotation)
    assert gradcheck(rotation_angle, rotation)


def test_gradients_are_finite_at_the_hard_places() -> None:
    turns = torch.diag_embed(
        torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    ).requires_grad_()
    matrix_to_quaternion(turns).sum().backward()
    assert turns.grad is not None and turns.grad.isfinite().all()
    turns.grad = None
    rotation_angle(turns).sum().backward()
    assert turns.grad is not None and turns.grad.isfinite().all()
    zero = torch.zeros(4, requires_grad=True)
    quaternion_to_matrix(zero).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()
    torch.testing.assert_close(quaternion_to_matrix(zero), torch.eye(3))
