"""One scale, or scale and shift, a sequence: what an independent optimiser finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vggt3.checks import DataError
from vggt3.metrics import VideoDepth, depth_scores, fit_l1


def pixels(count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    truth = 1 + 9 * torch.rand(count, dtype=torch.float64)
    guess = (truth - 0.7) / 2.5 * (1 + 0.02 * torch.randn_like(truth))
    guess[: count // 10] *= 4  # a tenth is wild: L2 would follow it
    return guess, truth


def test_the_scale_is_the_weighted_median() -> None:
    """Σ|s·x − y| is least at a median of y/x weighted by x; no iteration is needed to know it."""
    guess, truth = pixels()
    scale, shift = fit_l1(guess, truth)
    order = (truth / guess).argsort()
    ratio, weight = (truth / guess)[order].numpy(), guess[order].numpy()
    median = ratio[np.searchsorted(weight.cumsum(), weight.sum() / 2)]
    assert float(scale) == pytest.approx(median, rel=1e-4) and shift == 0


def test_scale_and_shift_are_the_linear_programs() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    guess, truth = pixels(150)
    scale, shift = fit_l1(guess, truth, with_shift=True)
    x, y, count = guess.numpy(), truth.numpy(), len(guess)
    # Least Σ e with −e ≤ s·x + t − y ≤ e.
    plane = np.stack([x, np.ones(count)], axis=1)
    above = np.concatenate([plane, -np.eye(count)], axis=1)
    below = np.concatenate([-plane, -np.eye(count)], axis=1)
    cost = np.concatenate([[0, 0], np.ones(count)])
    bounds = [(None, None)] * 2 + [(0, None)] * count
    best = optimize.linprog(
        cost, np.concatenate([above, below]), np.concatenate([y, -y]), bounds=bounds
    )
    ours = float((scale * guess + shift - truth).abs().sum())
    assert ours == pytest.approx(best.fun, rel=1e-5)
    assert float(scale) == pytest.approx(best.x[0], rel=1e-2)
    assert float(shift) == pytest.approx(best.x[1], abs=0.05)


def test_scores_by_hand() -> None:
    truth = torch.tensor([1.0, 2.0, 4.0, 8.0, 8.0])
    guess = torch.tensor([0.5, 1.0, 2.0, 4.0, 2.0])  # scale 2; the last is half
    error, close = depth_scores(guess, truth)
    assert float(error) == pytest.approx(0.5 / 5, abs=1e-5) and float(close) == 0.8
    metric = VideoDepth()
    metric.update(guess, truth)
    metric.update(truth / 3, truth)
    found = metric.compute()
    assert float(found["absrel"]) == pytest.approx(0.05, abs=1e-5)
    assert float(found["delta"]) == pytest.approx(90)


def test_a_shift_is_taken_up_only_where_it_is_asked_for() -> None:
    truth = torch.linspace(1, 9, 50)
    guess = (truth + 3) / 2
    assert float(depth_scores(guess, truth)[0]) > 0.05
    scale, shift = fit_l1(guess, truth, with_shift=True)
    assert (float(scale), float(shift)) == (pytest.approx(2), pytest.approx(-3))


def test_what_is_not_finite_is_not_close() -> None:
    truth = torch.tensor([1.0, 2.0, 4.0, 8.0])
    error, close = depth_scores(torch.tensor([1.0, math.nan, 4.0, 8.0]), truth)
    assert float(error) == pytest.approx(0, abs=1e-6) and float(close) == 0.75


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(DataError, match="valid pixels"):
        fit_l1(torch.full((3,), math.nan), torch.ones(3))
    with pytest.raises(DataError, match="must vary"):
        fit_l1(torch.ones(3), torch.ones(3), with_shift=True)
