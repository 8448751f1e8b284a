"""ATE and RPE: evo finds the same; the best alignment is one that nothing improves."""

from __future__ import annotations

import math

import pytest
import torch

from vggt3.checks import DataError
from vggt3.geometry.camera import invert_pose, look_at
from vggt3.geometry.rotation import axis_angle_to_matrix, random_rotation
from vggt3.metrics import TrajectoryError, align_cameras, relative_errors, trajectory_error


def path(views: int = 12) -> torch.Tensor:
    t = torch.arange(views, dtype=torch.float64)
    centre = torch.stack([3 * torch.cos(t / 4), torch.sin(t / 3), 0.2 * t], dim=-1)
    target = torch.tensor([0.0, 0, 5]).double().expand_as(centre) + 0.1 * centre.flip(1)
    return look_at(centre, target, torch.tensor([0.0, -1, 0]).double().expand_as(centre))


def noisy(truth: torch.Tensor) -> torch.Tensor:
    """Off by centimetres and degrees, in another frame and unit."""
    turns = axis_angle_to_matrix(
        torch.randn(len(truth), 3, dtype=torch.float64),
        0.05 * torch.randn(len(truth), dtype=torch.float64),
    )
    guess = turns @ truth
    guess[..., 3] += 0.05 * torch.randn_like(guess[..., 3])
    dice = torch.Generator().manual_seed(1)
    world = random_rotation((), dice, torch.float64)
    moved = torch.cat([guess[..., :3] @ world, guess[..., 3:]], dim=-1)
    moved[..., 3] *= 0.31
    return moved


def evo_path(cameras: torch.Tensor):  # type: ignore[no-untyped-def]
    trajectory = pytest.importorskip("evo.core.trajectory")
    last = torch.tensor([[[0.0, 0, 0, 1]]]).double().expand(len(cameras), 1, 4)
    return trajectory.PosePath3D(
        poses_se3=[p.numpy() for p in torch.cat([invert_pose(cameras), last], dim=1)]
    )


@pytest.mark.parametrize("delta", [1, 3])
def test_evo_finds_the_same(delta: int) -> None:
    evo = pytest.importorskip("evo.core.metrics")
    truth = path()
    guess = noisy(truth)
    metric = TrajectoryError(delta)
    metric.update(guess, truth)
    ours = {name: float(value) for name, value in metric.compute().items()}
    reference, estimate = evo_path(truth), evo_path(guess)
    estimate.align(reference, correct_scale=True)
    relation = evo.PoseRelation
    ate = evo.APE(relation.translation_part)
    ate.process_data((reference, estimate))
    assert ours["ate"] == pytest.approx(ate.get_statistic(evo.StatisticsType.rmse), rel=1e-9)
    for name, part in (
        ("rpe translation", relation.translation_part),
        ("rpe rotation", relation.rotation_angle_deg),
    ):
        rpe = evo.RPE(part, delta, evo.Unit.frames, all_pairs=True)
        rpe.process_data((reference, estimate))
        assert ours[name] == pytest.approx(rpe.get_statistic(evo.StatisticsType.rmse), rel=1e-7)
    assert ours["ate"] > 0.01 and ours["rpe rotation"] > 0.5


def test_by_hand() -> None:
    """A camera 3 m off and turned by 90° about its own axis: two motions are wrong."""
    truth = torch.eye(3, 4).double().repeat(4, 1, 1)
    truth[:, 0, 3] = -torch.arange(4).double()
    guess = truth.clone()
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).double()
    guess[1] = turn @ truth[1]
    guess[1, 1, 3] -= 3
    assert trajectory_error(guess, truth).tolist() == [0, 3, 0, 0]
    translation, rotation = relative_errors(guess, truth)
    assert rotation.rad2deg().tolist() == pytest.approx([90, 90, 0])
    assert translation[2] == 0 and translation[0] == pytest.approx(3)


def test_scenes_are_averaged_and_the_lost_counted() -> None:
    truth = path()
    metric, alone = TrajectoryError(), TrajectoryError()
    guess = noisy(truth)
    alone.update(guess, truth)
    metric.update(guess, truth)
    metric.update(truth, truth)
    lost = truth.clone()
    lost[0] = math.nan
    metric.update(lost, truth)
    metric.update(truth[:2], truth[:2])
    found = metric.compute()
    assert found["lost"] == 2
    assert float(found["ate"]) == pytest.approx(float(alone.compute()["ate"]) / 2, abs=1e-9)


def test_two_cameras_cannot_be_aligned() -> None:
    with pytest.raises(DataError, match="at least 3"):
        align_cameras(path(2), path(2))
