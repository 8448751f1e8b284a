"""CD, NC and ICP on clouds whose answers are known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vggt3.geometry.rotation import axis_angle_to_matrix
from vggt3.metrics.clouds import CloudAccuracy, Surface, cloud_errors, icp
from vggt3.metrics.neighbours import Neighbours


def floor(step: float = 0.1, side: int = 21, height: float = 0.0) -> Tensor:
    """A square grid in the plane z = height."""
    line = torch.arange(side, dtype=torch.float64) * step
    x, y = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, height)], dim=-1).reshape(-1, 3)


def turned(points: Tensor, degrees: float, axis: tuple[float, float, float]) -> Tensor:
    angle = torch.tensor(math.radians(degrees), dtype=torch.float64)
    return points @ axis_angle_to_matrix(torch.tensor(axis, dtype=torch.float64), angle).T


def test_parallel_floors() -> None:
    found = cloud_errors(Surface(floor(height=0.07)), Surface(floor()))
    assert found.accuracy == pytest.approx(0.07) and found.completeness == pytest.approx(0.07)
    assert found.chamfer == pytest.approx(0.07) and found.normals == pytest.approx(1)


def test_both_ways_are_told_apart() -> None:
    """A prediction of half the floor is exact, and leaves the other half out."""
    half = floor()[: 11 * 21]  # x ≤ 1.0 of 2.0
    found = cloud_errors(Surface(half), Surface(floor()))
    assert found.accuracy == pytest.approx(0) and found.accuracy_median == pytest.approx(0)
    assert found.completeness == pytest.approx(0.1 * sum(range(11)) / 21)
    assert found.chamfer == pytest.approx(found.completeness / 2)
    assert cloud_errors(Surface(floor()), Surface(half)).accuracy == found.completeness


@pytest.mark.parametrize("degrees", [0.0, 60.0, 90.0, 120.0])
def test_normals_are_undirected(degrees: float) -> None:
    tilted = turned(floor(), degrees, (1, 0, 0))
    found = cloud_errors(Surface(tilted), Surface(floor()))
    assert found.normals == pytest.approx(abs(math.cos(math.radians(degrees))), abs=1e-9)


def test_icp_by_hand() -> None:
    """Four corners moved by 5 cm come home; a stray point beyond the limit is not heard."""
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    stray = torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64)
    source = torch.cat([corners + torch.tensor([0.05, 0, 0]), stray])
    found = icp(source, Neighbours(corners), 0.1)
    torch.testing.assert_close(found.apply(source)[:4], corners)
    assert found.scale.item() == 1
    expected = torch.tensor([-0.05, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(found.translation, expected)


def test_icp_never_scales() -> None:
    corners = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    found = icp(corners * 1.05, Neighbours(corners), 0.1)
    moved = found.apply(corners * 1.05)
    torch.testing.assert_close(torch.cdist(moved, moved), 1.05 * torch.cdist(corners, corners))


def test_icp_undoes_a_small_motion() -> None:
    truth = torch.cat([floor(), turned(floor(), 90, (1, 0, 0)), turned(floor(), -90, (0, 1, 0))])
    moved = turned(truth, 1.0, (1, 2, 3)) + torch.tensor([0.01, -0.02, 0.015])
    for way in ("tree", "distances", "boxes"):
        found = icp(moved, Neighbours(truth, way), 0.1)
        torch.testing.assert_close(found.apply(moved), truth, atol=1e-6, rtol=0)
        assert torch.linalg.det(found.rotation).item() == pytest.approx(1)


def test_icp_ends_where_small_gicp_does() -> None:
    """An independent point-to-point ICP, run until it rests, on an uneven surface."""
    small_gicp = pytest.importorskip("small_gicp")
    truth = torch.cat([floor(), turned(floor(), 90, (1, 0, 0)), turned(floor(), -90, (0, 1, 0))])
    truth = truth + 0.02 * torch.sin(37 * truth.flip(1))
    source = turned(truth[::3], 0.8, (1, 2, 3)) + torch.tensor([0.01, -0.015, 0.01])
    source = source + 0.004 * torch.randn_like(source)
    clouds = [small_gicp.PointCloud(points.numpy()) for points in (truth, source)]
    tree = small_gicp.KdTree(clouds[0])
    theirs = small_gicp.align(
        clouds[0], clouds[1], tree, registration_type="ICP", max_correspondence_distance=0.1,
        rotation_epsilon=1e-9, translation_epsilon=1e-9, max_iterations=200,
    )  # fmt: skip
    found = icp(source, Neighbours(truth), 0.1)
    expected = torch.from_numpy(theirs.T_target_source)
    torch.testing.assert_close(found.rotation, expected[:3, :3], atol=2e-5, rtol=0)
    torch.testing.assert_close(found.translation, expected[:3, 3], atol=2e-5, rtol=0)
    assert (found.translation - torch.zeros(3)).norm() > 0.01


def test_icp_out_of_reach_stays_where_it_is() -> None:
    far = floor() + 5
    found = icp(far, Neighbours(floor()), 0.1)
    torch.testing.assert_close(found.apply(far), far)
    line = torch.tensor([[x, 0.0, 0.0] for x in range(5)], dtype=torch.float64)
    found = icp(line + 0.01, Neighbours(line), 0.1)
    assert found.rotation.equal(torch.eye(3).double())


def test_both_ways_of_looking_give_the_same_scores() -> None:
    truth = torch.cat([floor(), turned(floor(), 90, (1, 0, 0))])
    truth = truth + 0.002 * torch.randn_like(truth)  # a grid's equal distances have no order
    guess = truth + 0.03 * torch.randn_like(truth)
    one = cloud_errors(Surface(guess, "tree"), Surface(truth, "tree"))
    two = cloud_errors(Surface(guess, "distances"), Surface(truth, "distances"))
    three = cloud_errors(Surface(guess, "boxes"), Surface(truth, "boxes"))
    assert vars(one) == pytest.approx(vars(two), rel=1e-5)
    assert vars(one) == pytest.approx(vars(three), rel=1e-12)
    assert 0.01 < one.chamfer < 0.05 and 0.5 < one.normals < 1


def test_the_metric_is_the_mean_over_scenes() -> None:
    metric = CloudAccuracy()
    metric.update(floor(height=0.1), floor())
    metric.update(turned(floor(), 90, (1, 0, 0)), turned(floor(), 90, (1, 0, 0)))
    found = metric.compute()
    assert found["cd"].item() == pytest.approx(0.05) and found["nc"].item() == pytest.approx(1)
