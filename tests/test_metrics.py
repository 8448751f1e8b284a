"""The scores: hand-made values, and agreement with scores added up in one go."""

from __future__ import annotations

import math

import pytest
import torch

from vggt3.geometry.camera import look_at, normalise_to_first
from vggt3.geometry.rotation import axis_angle_to_matrix
from vggt3.metrics import (
    AbsRel,
    PoseAccuracy,
    accuracy_curve,
    pair_errors_deg,
    sideways,
    still_baseline,
)


def poses(batch: int = 2, views: int = 4) -> torch.Tensor:
    centre = torch.randn(batch, views, 3, dtype=torch.float64)
    ahead = torch.tensor([0.0, 0.0, 9.0], dtype=torch.float64).expand_as(centre)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64).expand_as(centre)
    return normalise_to_first(look_at(centre, ahead, up))


def test_the_truth_has_no_error() -> None:
    truth = poses()
    rotation, translation = pair_errors_deg(truth, truth)
    assert rotation.shape == (2, 6)
    assert rotation.max() < 1e-5 and translation.max() < 1e-5


def test_scale_sign_and_world_frame_do_not_matter() -> None:
    truth = poses()
    turned = truth.clone()
    turned[..., 3] *= -3  # another scale and sign
    rotation, translation = pair_errors_deg(turned, truth)
    assert rotation.max() < 1e-5 and translation.max() < 1e-5


def test_cameras_in_one_place_have_no_direction() -> None:
    truth = poses()
    stuck = truth.clone()
    stuck[..., 3] = 0  # the right rotations, and nobody moves
    rotation, translation = pair_errors_deg(stuck, truth)
    assert rotation.max() < 1e-5
    torch.testing.assert_close(translation, torch.full_like(translation, 90))
    metric = PoseAccuracy()
    metric.update(stuck, truth)
    found = metric.compute()
    assert found["auc@30"] == found["rta@30"] == 0 and found["rra@5"] == 100
    metric = PoseAccuracy()
    metric.update(truth, stuck)  # where the truth stands still, rotations alone are scored
    found = metric.compute()
    assert found["auc@30"] == 100 and found["still"] == 12 and found["rta@30"].isnan()


def test_a_turned_camera() -> None:
    truth = poses(1, 2)
    axis = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    turn = axis_angle_to_matrix(axis, torch.tensor(math.radians(12.3), dtype=torch.float64))
    guess = truth.clone()
    guess[0, 1] = turn @ truth[0, 1]
    rotation, _ = pair_errors_deg(guess, truth)
    assert rotation.item() == pytest.approx(12.3)


def test_auc_of_one_error() -> None:
    """12.3° counts from the thirteenth bin on: 18 of 30."""
    assert accuracy_curve(torch.tensor([12.3])).mean().item() == pytest.approx(18 / 30)
    assert accuracy_curve(torch.tensor([0.0])).mean().item() == 1
    assert accuracy_curve(torch.tensor([30.0])).mean().item() == 0


def test_batches_add_up() -> None:
    truth = poses(4)
    guess = normalise_to_first(truth + 0.05 * torch.randn_like(truth))
    one, two = PoseAccuracy(), PoseAccuracy()
    one.update(guess, truth)
    for scene in range(4):
        two.update(guess[scene : scene + 1], truth[scene : scene + 1])
    for name, value in one.compute().items():
        torch.testing.assert_close(value, two.compute()[name])


def test_short_baselines_are_scored_by_rotation_and_counted() -> None:
    truth = poses(1, 3)
    guess = truth.clone()
    guess[..., 3] = torch.randn(3, dtype=torch.float64)
    metric = PoseAccuracy()
    metric.update(guess, truth, torch.tensor([1e9], dtype=torch.float64))
    found = metric.compute()
    assert found["auc@30"] == 100 and found["still"] == 3 and found["rta@30"].isnan()


def test_a_baseline_is_still_below_a_hundredth_of_the_median_depth() -> None:
    depth = torch.tensor([2.0, 3.0, 4.0, 0.0, 0.0]).reshape(1, 1, 1, 5).repeat(2, 1, 1, 1)
    known = depth > 0
    known[1] = False
    assert still_baseline(depth, known).tolist() == [pytest.approx(0.03), 0]


def test_the_trivial_guess_moves_to_the_right() -> None:
    guess = sideways(poses())
    assert guess[0, 2, 0, 3] == -2 and torch.equal(guess[0, 2, :, :3], torch.eye(3).double())


def test_absrel_by_hand() -> None:
    truth = torch.full((1, 1, 2, 2), 2.0)
    guess = torch.tensor([[[[1.0, 1.0], [1.0, 1.5]]]])  # median scale 2
    known = torch.ones(1, 1, 2, 2) > 0
    metric = AbsRel()
    metric.update(guess, truth, known)
    found = metric.compute()
    assert found["absrel"].item() == pytest.approx(0.5 / 4)
    assert found["delta"].item() == pytest.approx(75)
    known[..., 1, 1] = False
    metric.reset()
    metric.update(guess, truth, known)
    assert metric.compute()["absrel"].item() == 0
