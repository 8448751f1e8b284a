"""Depth of scenes: one scale each, and what counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vggt3.metrics import AbsRel
from vggt3.metrics.depth import median_scale


def scores(guess: Tensor, truth: Tensor, known: Tensor) -> dict[str, float]:
    metric = AbsRel()
    metric.update(guess, truth, known)
    return {name: float(value) for name, value in metric.compute().items()}


def scenes(*rows: list[float]) -> Tensor:
    """[B, 1, 1, W] of B scenes."""
    return torch.tensor(rows)[:, None, None]


def test_of_an_even_number_the_scale_is_the_mean_of_the_two_in_the_middle() -> None:
    truth = scenes([1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 9.0], [1.0, 2.0, 3.0, 9.0])
    known = truth < 9
    known[2] = False
    assert median_scale(torch.ones_like(truth), truth, known).tolist() == [3, 2, 1]


def test_what_is_behind_the_camera_is_not_close() -> None:
    truth = scenes([2.0, 2.0, 2.0, 2.0])
    known = truth > 0
    assert scores(-truth, truth, known)["delta"] == 0
    assert scores(scenes([2.0, 2.0, 2.0, -2.0]), truth, known)["delta"] == 75
    assert scores(scenes([2.0, 2.0, 2.0, 0.0]), truth, known)["delta"] == 75


def test_a_scene_without_truth_does_not_count() -> None:
    truth = scenes([2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0])
    guess = scenes([1.0, 1.0, 1.0, 1.5], [1.0, 2.0, 3.0, float("nan")])
    found = scores(guess, truth, truth > 0)
    assert found == {"absrel": pytest.approx(0.5 / 4), "delta": pytest.approx(75)}
    nobody = scores(guess[1:], truth[1:], truth[1:] > 0)
    assert math.isnan(nobody["absrel"]) and math.isnan(nobody["delta"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_scene_at_all_has_no_score() -> None:
    assert all(value.isnan() for value in AbsRel().compute().values())
