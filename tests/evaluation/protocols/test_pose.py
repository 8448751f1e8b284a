"""Poses of any data: an oracle, AUC beside numpy's, and folders of every layout with cameras."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.layouts import WRITERS, Drawn, drawn
from tests.evaluation.protocols.oracle import LONG_SIDE, engine, knows
from tests.evaluation.protocols.test_points import run
from vggt3.checks import DataError, UsageError
from vggt3.evaluation.protocols.base import Answer
from vggt3.evaluation.protocols.catalogue import protocol
from vggt3.evaluation.protocols.pose import pair_scores, path_scores
from vggt3.evaluation.protocols.trial import Trial, TrialOptions
from vggt3.geometry.rotation import axis_angle_to_matrix


@pytest.fixture(scope="module")
def scene() -> Drawn:
    return drawn()


def trial(folder: Path, **options: object) -> Trial:
    given = TrialOptions(long_side=LONG_SIDE, **options)  # type: ignore[arg-type]
    return Trial(engine(), protocol("pose"), folder, given)


@pytest.mark.parametrize("name", ["captures", "colmap", "nerfstudio", "tum", "scannet"])
def test_the_truth_scores_full_marks(
    name: str, scene: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path, scene)

    def answer(self: Trial, scene_, chosen) -> Answer:  # type: ignore[no-untyped-def]
        cameras = scene_.cameras(chosen.views)
        half = cameras.camera_from_world.clone()
        half[..., 3] /= 2
        return Answer(replace(cameras, camera_from_world=half), {})

    monkeypatch.setattr(Trial, "answer", answer)
    (row,) = trial(tmp_path).run().rows.values()
    assert row.scores["auc@30"] == row.scores["rra@5"] == row.scores["rta@5"] == 100
    assert row.scores["ate"] < 1e-5 and row.scores["rpe rotation"] < 1e-3
    assert row.trivial["auc@30"] < 100 and row.scores["views"] == 4


def test_auc_is_numpys() -> None:
    """The mean over 1° bins of the cumulative histogram of max(R, t), by numpy alone."""
    dice = np.random.default_rng(5)
    truth = torch.eye(3, 4).double().repeat(9, 1, 1)
    truth[..., 3] = torch.from_numpy(dice.normal(size=(9, 3)))
    axes = torch.from_numpy(dice.normal(size=(9, 3)))
    turns = axis_angle_to_matrix(axes, torch.from_numpy(dice.normal(scale=0.2, size=9)))
    guess = turns @ truth
    guess[..., 3] += torch.from_numpy(dice.normal(scale=0.2, size=(9, 3)))
    worst, found = [], pair_scores(guess, truth)
    for i in range(9):
        for j in range(i + 1, 9):
            relative = []
            for cameras in (guess.numpy(), truth.numpy()):
                whole = [np.vstack([cameras[n], [0, 0, 0, 1]]) for n in (i, j)]
                relative.append(whole[0] @ np.linalg.inv(whole[1]))
            ours, theirs = relative
            cosine = (np.trace(ours[:3, :3].T @ theirs[:3, :3]) - 1) / 2
            rotation = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            a, b = ours[:3, 3], theirs[:3, 3]
            turn = np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
            worst.append(max(rotation, min(turn, 180 - turn)))
    histogram, _ = np.histogram(worst, bins=np.arange(31))
    area = np.mean(np.cumsum(histogram / len(worst)))
    assert found["auc@30"] == pytest.approx(100 * area) and 5 < found["auc@30"] < 95


def test_one_or_two_views_have_no_path() -> None:
    one, two = torch.eye(3, 4)[None].double(), torch.eye(3, 4).repeat(2, 1, 1).double()
    assert all(math.isnan(x) for x in pair_scores(one, one).values())
    assert all(math.isnan(x) for x in path_scores(two, two).values())


def test_every_nth_view_and_other_options(scene: Drawn, tmp_path: Path) -> None:
    WRITERS["captures"](tmp_path, scene)
    (found,) = trial(tmp_path, every=3).scenes.values()
    assert trial(tmp_path, every=3).protocol.choose(found).views == (0, 3)
    assert trial(tmp_path, every=3).protocol.digest != trial(tmp_path).protocol.digest
    with pytest.raises(DataError, match="looks like captures"):
        trial(tmp_path, layout="dtu")
    with pytest.raises(UsageError, match="--every must be left out: dtu says it, got"):
        Trial(engine(), protocol("dtu"), tmp_path, TrialOptions(every=2))
    with pytest.raises(UsageError, match="--layout must be one of"):
        TrialOptions(layout="capture")


def test_poses_that_are_nan_are_said(
    scene: Drawn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["scannet"](tmp_path, scene)
    (tmp_path / "scene0000_00/pose/1.txt").write_text("nan " * 16)
    assert run("pose", "--data", tmp_path) == 1
    assert "pose/1.txt must be finite, got nan or infinity" in capsys.readouterr().err


def test_as_typed(scene: Drawn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["colmap"](tmp_path, scene)
    assert run("pose", "--data", tmp_path) == 0
    told = capsys.readouterr().out
    for text in ("AUC@30 %", "ATE rmse", "RPE rotation °", "trivial guess"):
        assert text in told, text
    assert run("points", "--data", tmp_path) == 1
    assert "got no depth" in capsys.readouterr().err


def test_captures_with_depth_are_scored_as_points(
    scene: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["captures"](tmp_path, scene)
    knows(monkeypatch)
    found = Trial(engine(), protocol("points"), tmp_path, TrialOptions(long_side=LONG_SIDE))
    (row,) = found.run().rows.values()
    assert row.scores["cd"] < 1e-5 and found.unit == "m"
