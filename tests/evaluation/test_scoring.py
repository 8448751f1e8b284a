"""The scores of one scene: an oracle gets them all, a wrong frame, sign or unit loses them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from vggt3.evaluation import scoring
from vggt3.evaluation.rooms import ExamScene, photographed, read_exam, some_views
from vggt3.evaluation.scoring import POINTS, Predicted, cloud_scores, sample, score_scene
from vggt3.geometry.alignment import Similarity
from vggt3.geometry.camera import invert_pose
from vggt3.geometry.projection import unproject
from vggt3.geometry.rotation import random_rotation


@pytest.fixture(scope="module")
def scene() -> ExamScene:
    exam = read_exam()
    chosen = exam.choose("v8")
    shown = some_views(chosen.draw(chosen.scenes[0]), slice(4))
    return photographed(shown, chosen.scenes[0], exam.samples)


@pytest.fixture
def fewer_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "POINTS", 3000)


def oracle(scene: ExamScene) -> Predicted:
    points = unproject(scene.depth, scene.intrinsics, scene.camera_from_world, 0.5)
    return Predicted(scene.camera_from_world, scene.depth, {"depth": points})


def moved(predicted: Predicted) -> Predicted:
    """The same scene in another frame and unit."""
    generator = torch.Generator().manual_seed(0)
    motion = Similarity(
        torch.tensor(0.37, dtype=torch.float64),
        random_rotation((), generator, torch.float64),
        torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64),
    )
    points = predicted.points["depth"].double()
    return Predicted(
        motion.apply_to_cameras(predicted.camera_from_world.double()).float(),
        predicted.depth * 0.37,
        {"depth": motion.apply(points.reshape(-1, 3)).reshape(points.shape).float()},
    )


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_truth_scores_full_marks(scene: ExamScene, elsewhere: bool) -> None:
    predicted = moved(oracle(scene)) if elsewhere else oracle(scene)
    scores, trivial = score_scene(predicted, scene)
    assert scores["auc@30"] == scores["rra@5"] == scores["rta@5"] == 100
    assert scores["absrel"] < 1e-5 and scores["delta"] == 100
    assert scores["cd"] < 1e-4 and scores["nc"] > 0.9999
    assert scores["pairs"] == 6 and scores["still"] == 0
    assert trivial["auc@30"] < 30


@pytest.mark.usefixtures("fewer_points")
def test_a_wrong_frame_scores_badly(scene: ExamScene) -> None:
    good = oracle(scene)
    inverse = replace(good, camera_from_world=invert_pose(good.camera_from_world))
    assert score_scene(replace(inverse, points={}), scene)[0]["auc@30"] < 30
    transposed = replace(good, points={"depth": good.points["depth"].transpose(1, 2)}).points
    assert cloud_scores(transposed, scene)["cd"] > 0.1
    flip = torch.tensor([-1.0, 1.0, 1.0])
    mirrored = cloud_scores({"depth": good.points["depth"] * flip}, scene)
    assert mirrored["cd"] > 0.1 and mirrored["nc"] < 0.95


def test_depth_is_scored_up_to_one_scale(scene: ExamScene) -> None:
    good = oracle(scene)
    uneven = good.depth.clone()
    uneven[:2] *= 1.5
    scores, _ = score_scene(Predicted(good.camera_from_world, uneven, {}), scene)
    assert 0.1 < scores["absrel"] < 0.5 and scores["delta"] < 95
    assert "cd" not in scores


@pytest.mark.usefixtures("fewer_points")
def test_icp_takes_up_what_the_whole_leaves(
    scene: ExamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One displaced view pulls the Sim(3) off; ICP brings the others home."""
    points = oracle(scene).points["depth"].clone()
    points[0] += torch.tensor([0.3, 0.0, 0.0])
    found = cloud_scores({"depth": points, "head": points}, scene)
    assert 0.001 < found["cd"] < 0.1
    assert found["cd head"] == found["cd"] and found["nc head"] == found["nc"]
    monkeypatch.setattr(scoring, "ICP_LIMIT_M", 1e-9)
    assert cloud_scores({"depth": points}, scene)["accuracy"] > 1.1 * found["accuracy"]


@pytest.mark.usefixtures("fewer_points")
def test_a_prediction_that_is_not_finite_fails_alone(scene: ExamScene) -> None:
    good = oracle(scene)
    lost = torch.full_like(good.points["depth"], math.nan)
    poses = good.camera_from_world.clone()
    poses[3] = math.nan
    some = good.points["depth"].clone()
    some[0, 0] = math.inf
    scores, _ = score_scene(Predicted(poses, good.depth, {"depth": some, "head": lost}), scene)
    assert scores["auc@30"] == pytest.approx(50)  # 3 of 6 pairs have camera 3
    assert scores["cd"] < 1e-2
    assert math.isnan(scores["cd head"]) and math.isnan(scores["nc head"])


def test_the_sample_is_a_function_of_its_seed() -> None:
    first = sample(10 * POINTS, 5)
    assert len(first) == POINTS and (first.diff() > 0).all() and int(first.max()) < 10 * POINTS
    assert first.equal(sample(10 * POINTS, 5)) and not first.equal(sample(10 * POINTS, 6))
    assert abs(float(first.double().mean()) / (10 * POINTS) - 0.5) < 0.01
    assert sample(7, 1).tolist() == list(range(7))


def test_the_exams_numbers_stay(scene: ExamScene) -> None:
    """Scores of one spoilt truth, as they were when the exam was frozen."""
    row, column = torch.meshgrid(torch.arange(168.0), torch.arange(168.0), indexing="ij")
    depth = scene.depth * (1 + 0.02 * torch.sin(row / 7) * torch.cos(column / 5))
    pose = scene.camera_from_world.clone()
    pose[1:, 0, 3] += 0.05
    turn = torch.tensor([[0.995004, -0.0998334, 0], [0.0998334, 0.995004, 0], [0, 0, 1]])
    pose[2, :3, :3] = pose[2, :3, :3] @ turn
    points = unproject(depth, scene.intrinsics, pose, 0.5)
    bent = points * 1.01 + 0.01 * torch.sin(column / 3)[None, :, :, None]
    scores, _ = score_scene(Predicted(pose, depth, {"depth": points, "head": bent}), scene)
    expected = {
        "auc@30": 86.111111, "rra@5": 50, "rta@5": 66.666667, "rra@15": 100, "rta@15": 100,
        "rra@30": 100, "rta@30": 100, "still": 0, "pairs": 6, "absrel": 0.008074, "delta": 100,
        "accuracy": 0.033829, "completeness": 0.025160, "cd": 0.029494, "nc": 0.899902,
        "accuracy head": 0.034456, "completeness head": 0.025737, "cd head": 0.030097,
        "nc head": 0.890244,
    }  # fmt: skip
    assert scores.keys() == expected.keys()
    assert scores == pytest.approx(expected, abs=2e-6)
    fewer, _ = score_scene(Predicted(pose, depth, {"depth": points}), scene, most=3000)
    assert fewer["cd"] != scores["cd"] and fewer["cd"] == pytest.approx(scores["cd"], rel=0.3)
