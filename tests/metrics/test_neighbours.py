"""Nearest neighbours: the tree and the table of all distances find the same."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from vggt3.checks import DataError, UsageError
from vggt3.metrics import box_tree, neighbours
from vggt3.metrics.neighbours import Neighbours


def cloud(count: int, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 3, dtype=torch.float64) + offset


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("far", [0.0, 1000.0])
def test_tree_and_distances_agree(count: int, far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 1 << 16)  # several blocks, the last one short
    points, queries = cloud(700, far), cloud(333, far)
    near, index = Neighbours(points, "tree").nearest(queries, count)
    other, place = Neighbours(points, "distances").nearest(queries, count)
    torch.testing.assert_close(other, near, rtol=1e-5, atol=1e-9)
    assert torch.equal(index, place)
    torch.testing.assert_close((points[index] - queries[:, None]).norm(dim=-1), near)


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("points", [31, 32, 33, 64, 1000, 4097])
def test_boxes_are_exact(count: int, points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a thin, clustered cloud with repeated points, asked from near and far."""
    monkeypatch.setattr(box_tree, "BLOCK", 1 << 13)  # several blocks of queries
    held = cloud(points) * torch.tensor([1.0, 0.01, 3.0]) + 5 * (cloud(points) > 0)
    held[: points // 4] = held[0]
    queries = torch.cat([held[::7] + 1e-3 * cloud(len(held[::7])), cloud(99, 3.0), cloud(9, 1e4)])
    for limit in (math.inf, 0.5):
        near, _ = Neighbours(held, "tree").nearest(queries, count, limit)
        found, index = Neighbours(held, "boxes").nearest(queries, count, limit)
        torch.testing.assert_close(found, near, rtol=1e-13, atol=0)
        known = found.isfinite()
        apart = (held[index] - queries[:, None]).norm(dim=-1)
        torch.testing.assert_close(apart[known], found[known], rtol=1e-12, atol=1e-15)
        for row, places in zip(known, index, strict=True):
            assert len(set(places[row].tolist())) == int(row.sum())


def test_a_large_cloud_without_scipy_is_put_in_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    monkeypatch.setattr(neighbours, "LARGE", 40)
    monkeypatch.setattr(neighbours, "_closest", lambda *_: pytest.fail("all distances"))
    assert Neighbours(cloud(40)).nearest(cloud(3))[0].shape == (3, 1)


def test_single_precision_agrees_to_1e_5() -> None:
    points, queries = cloud(500, 20.0).float(), cloud(200, 20.0).float()
    near, _ = Neighbours(points, "tree").nearest(queries)
    other, _ = Neighbours(points, "distances").nearest(queries)
    torch.testing.assert_close(other, near, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["tree", "distances", "boxes"])
def test_nothing_is_found_beyond_the_limit(way: neighbours.Way) -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    queries = torch.tensor([[0.2, 0, 0], [0.5, 0, 0]], dtype=torch.float64)
    near, index = Neighbours(points, way).nearest(queries, limit=0.3)
    assert near[:, 0].tolist() == [pytest.approx(0.2), math.inf] and index[0, 0] == 0


@pytest.mark.parametrize("way", ["tree", "distances", "boxes"])
def test_a_small_cloud_gives_what_it_has(way: neighbours.Way) -> None:
    near, index = Neighbours(cloud(4), way).nearest(cloud(2), 30)
    assert near.shape == index.shape == (2, 4)
    assert (near.diff(dim=1) >= 0).all()


def test_wrong_points_are_said() -> None:
    with pytest.raises(UsageError, match="points must have shape"):
        Neighbours(torch.zeros(4, 2))
    with pytest.raises(DataError, match="at least one"):
        Neighbours(torch.zeros(0, 3))


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    points, queries = cloud(50), cloud(9)
    expected = Neighbours(points, "tree").nearest(queries, 3)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    found = Neighbours(points).nearest(queries, 3)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ImportError):
        Neighbours(points, "tree")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_the_tree_finds() -> None:
    """A million points on a wavy sheet, asked from beside it; bit for bit the same twice."""
    flat = 10 * torch.rand(1_000_000, 3, dtype=torch.float64)
    held = torch.cat([flat[:, :2], torch.sin(flat[:, :2].sum(1, keepdim=True))], dim=1)
    queries = held[::5] + 0.05 * cloud(200_000)
    near, _ = Neighbours(held, "tree").nearest(queries)
    device = torch.device(torch.cuda.current_device())
    there = Neighbours(held.to(device))
    found, index = there.nearest(queries.to(device))
    torch.testing.assert_close(found.cpu(), near, rtol=1e-12, atol=0)
    again, same = there.nearest(queries.to(device))
    assert torch.equal(found, again) and torch.equal(index, same)
    many, _ = there.nearest(queries[:50_000].to(device), 30)
    expected, _ = Neighbours(held, "tree").nearest(queries[:50_000], 30)
    torch.testing.assert_close(many.cpu(), expected, rtol=1e-12, atol=1e-15)
