"""Closed-form alignment: exact recovery, invariances, degenerate input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vggt3.checks import DataError, UsageError
from vggt3.geometry.alignment import Similarity, umeyama
from vggt3.geometry.camera import camera_centres
from vggt3.geometry.rotation import random_rotation


def similarity(batch: int, scale: bool = True) -> Similarity:
    generator = torch.Generator().manual_seed(5)
    size = torch.rand(batch, generator=generator, dtype=torch.float64) + 0.5
    return Similarity(
        size if scale else torch.ones_like(size),
        random_rotation((batch,), generator, torch.float64),
        torch.randn(batch, 3, generator=generator, dtype=torch.float64),
    )


def cloud(batch: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("count", [3, 4, 100])
def test_recovers_what_was_applied(with_scale: bool, count: int) -> None:
    truth = similarity(4, with_scale)
    source = cloud(4, count)
    found = umeyama(source, truth.apply(source), with_scale=with_scale)
    torch.testing.assert_close(found.scale, truth.scale)
    torch.testing.assert_close(found.rotation, truth.rotation)
    torch.testing.assert_close(found.translation, truth.translation)
    torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(4).double())


def test_planar_points_and_reflections_still_give_a_rotation() -> None:
    source = cloud(3, 20)
    source[..., 2] = 0
    truth = similarity(3)
    found = umeyama(source, truth.apply(source))
    torch.testing.assert_close(found.rotation, truth.rotation)
    mirrored = cloud(3, 20) * torch.tensor([1.0, 1.0, -1.0])
    found = umeyama(cloud(3, 20), mirrored)
    torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(3).double())


def test_solution_is_the_least_squares_one() -> None:
    source, target = cloud(1, 30), cloud(1, 30).flip(1)
    weights = torch.rand(1, 30, dtype=torch.float64)
    found = umeyama(source, target, weights)

    def cost(candidate: Similarity) -> float:
        return float((weights * (candidate.apply(source) - target).square().sum(-1)).sum())

    best = cost(found)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        step = 1e-3 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
        near = torch.linalg.matrix_exp(step - step.T) @ found.rotation
        shift = 1e-3 * torch.randn(3, generator=generator, dtype=torch.float64)
        for scale in (0.999, 1.0, 1.001):
            other = Similarity(found.scale * scale, near, found.translation + shift)
            assert cost(other) > best


def test_weights_of_zero_are_absence() -> None:
    source = cloud(2, 10)
    truth = similarity(2)
    target = truth.apply(source)
    target[:, 7:] += 100
    weights = torch.ones(2, 10)
    weights[:, 7:] = 0
    found = umeyama(source, target, weights)
    torch.testing.assert_close(found.rotation, truth.rotation)


def test_float32_far_from_the_origin() -> None:
    source = cloud(1, 50)
    truth = Similarity(
        torch.ones(1), random_rotation((1,), torch.Generator().manual_seed(0)), torch.ones(1, 3)
    )
    found = umeyama((source + 500).float(), truth.apply(source + 500).float())
    assert found.scale.dtype == torch.float64
    torch.testing.assert_close(found.rotation.float(), truth.rotation, atol=2e-4, rtol=0)


def test_cameras_move_with_their_centres() -> None:
    truth = similarity(2)
    pose = torch.cat([similarity(5).rotation, cloud(5, 1).transpose(-1, -2)], dim=-1)
    moved = truth.apply_to_cameras(pose.expand(2, 5, 3, 4))
    centres = camera_centres(pose).expand(2, 5, 3)
    torch.testing.assert_close(camera_centres(moved), truth.apply(centres))
    points = cloud(2, 8)
    seen = points @ pose[0, :, :3].T + pose[0, :, 3]
    seen_moved = truth.apply(points) @ moved[:, 0, :, :3].transpose(-1, -2)
    seen_moved = seen_moved + moved[:, 0, None, :, 3]
    torch.testing.assert_close(seen_moved, truth.scale[:, None, None] * seen)


def line(count: int) -> Tensor:
    return torch.linspace(0, 1, count)[:, None] * torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "points",
    [cloud(1, 2)[0], torch.ones(10, 3), line(10), torch.full((5, 3), torch.nan)],
    ids=["two", "one place", "one line", "nan"],
)
def test_degenerate_input_is_said(points: Tensor) -> None:
    with pytest.raises(DataError, match="points"):
        umeyama(points, points)


def test_wrong_shapes_are_said() -> None:
    with pytest.raises(UsageError, match="one shape"):
        umeyama(cloud(1, 4), cloud(1, 5))
    with pytest.raises(UsageError, match="weights must have shape"):
        umeyama(cloud(1, 4), cloud(1, 4), torch.ones(4))
    with pytest.raises(DataError, match="at least 3, got 2"):
        umeyama(cloud(1, 4), cloud(1, 4), torch.tensor([[1.0, 1, 0, 0]]))


def test_one_place_away_from_the_origin_is_known_in_spite_of_rounding() -> None:
    place = torch.tensor([0.1, 0.7, 1.3]).expand(5, 3)
    with pytest.raises(DataError, match="in one place"):
        umeyama(place, torch.rand(5, 3))
    with pytest.raises(DataError, match="in one place"):
        umeyama(torch.rand(5, 3), place)
