"""Queries: errors by hand, and the share under each pair of limits."""

from __future__ import annotations

import math

import pytest
import torch

from vggt3.geometry.rotation import axis_angle_to_matrix
from vggt3.metrics import QueryAccuracy, pose_errors


def camera(degrees: float, metres: float) -> torch.Tensor:
    """Turned about z by ``degrees``; its centre is ``metres`` along the world's x axis."""
    turn = axis_angle_to_matrix(
        torch.tensor([0.0, 0, 1]).double(), torch.tensor(math.radians(degrees)).double()
    )
    return torch.cat([turn, -turn @ torch.tensor([[metres], [0.0], [0.0]]).double()], dim=1)


def test_by_hand() -> None:
    offs = [(5, 0.05), (5, 0.15), (25, 0.05), (9, 0.25), (90, 2.0)]
    guess = torch.stack([camera(*off) for off in offs])
    truth = torch.eye(3, 4).double().expand(5, 3, 4)
    rotation, translation = pose_errors(guess, truth)
    assert rotation.tolist() == pytest.approx([5, 5, 25, 9, 90])
    assert translation.tolist() == pytest.approx([0.05, 0.15, 0.05, 0.25, 2.0])
    metric = QueryAccuracy()
    metric.update(guess[:2], truth[:2])
    metric.update(guess[2:], truth[2:])
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["rotation"] == pytest.approx(26.8)
    assert found["translation"] == pytest.approx(0.5)
    assert found["rotation median"] == pytest.approx(9)
    assert found["translation median"] == pytest.approx(0.15)
    assert [found[f"under {k}"] for k in (10, 20, 30)] == [20, 40, 80]
    metric.reset()
    metric.update(guess[:4], truth[:4])  # of an even number, the mean of the two in the middle
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["rotation median"] == pytest.approx(7)
    assert found["translation median"] == pytest.approx(0.1)


def test_where_no_answer_is_finite_there_is_no_median() -> None:
    metric = QueryAccuracy()
    metric.update(torch.full((2, 3, 4), math.nan), torch.eye(3, 4).expand(2, 3, 4))
    found = metric.compute()
    assert found["rotation median"].isnan() and found["translation median"].isnan()
    assert found["under 30"] == 0 and found["queries"] == 2


def test_an_answer_that_is_not_finite_is_under_no_limit() -> None:
    metric = QueryAccuracy()
    metric.update(torch.full((1, 3, 4), math.nan), torch.eye(3, 4)[None])
    metric.update(torch.eye(3, 4)[None], torch.eye(3, 4)[None])
    found = metric.compute()
    assert found["under 10"] == 50 and found["rotation"] == 0 and found["queries"] == 2
