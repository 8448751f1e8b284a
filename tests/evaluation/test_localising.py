"""The protocol of localisation: who is mapped, who is asked, and what counts as an error."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from vggt3 import checks
from vggt3.evaluation.localising import LocalisationRow, auroc, localisation_row, split, summary
from vggt3.evaluation.rooms import ExamScene
from vggt3.geometry.camera import invert_pose
from vggt3.geometry.rotation import random_rotation
from vggt3.inference.localise import Answer, Localizer
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3


def test_split_is_even_and_the_first_is_mapped() -> None:
    mapped, asked = split(300)
    assert (len(mapped), len(asked)) == (100, 50)
    assert mapped[0] == 0
    assert sorted(mapped + asked) == list(range(0, 300, 2))
    assert mapped[:4] == [0, 4, 6, 10]
    assert asked[:3] == [2, 8, 14]
    with pytest.raises(checks.UsageError, match="at least 150 photos, got 149"):
        split(149)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    scores, own = torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False])
    assert auroc(scores, own) == (1 + 1 + 0.5 + 1) / 4


def drawn_scene(count: int) -> ExamScene:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(count, 3, 1, generator=generator)
    pose = torch.cat([random_rotation((count,), generator), centres], dim=-1)
    images = torch.randint(0, 255, (count, 3, 28, 28), dtype=torch.uint8)
    return ExamScene(7, images, torch.ones(count, 28, 28), pose, torch.eye(3).repeat(count, 1, 1))


def test_answers_that_are_right_but_for_a_known_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is the truth moved by a similarity; queries are 3° and 0.2 m away from it."""
    scene, mapped, asked = drawn_scene(9), [0, 1, 3, 4, 6, 7], [2, 5, 8]
    world_from_camera = invert_pose(scene.camera_from_world.double())
    turned = world_from_camera.clone()
    turned[..., 3] *= 2.5  # the model's unit is another
    told = invert_pose(turned)

    def ask(self: Localizer, views: object, observe: object = None) -> list[Answer]:
        angle = math.radians(3.0)
        turn = torch.tensor(
            [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0],
             [0, 0, 1]], dtype=torch.float64,
        )  # fmt: skip
        answers = []
        for n, view in enumerate(asked):
            away = turned[view].clone()
            away[:, :3] = away[:, :3] @ turn
            away[0, 3] += 0.2 * 2.5
            answers.append(Answer(n, invert_pose(away), torch.eye(3), (28, 28), 0.5, None))
        return answers

    monkeypatch.setattr(Localizer, "ask", ask)
    from vggt3.evaluation import localising

    honest = localising.map_taken

    def mapping(*given: object) -> object:
        made = honest(*given)  # type: ignore[arg-type]
        return replace(made, cameras=replace(made.cameras, camera_from_world=told[mapped]))

    monkeypatch.setattr(localising, "map_taken", mapping)
    engine = SceneEngine(VGGT3.build(TINY, "ttt_mlp").eval(), RunOptions("cpu"))
    row = localisation_row(engine, scene, mapped, asked)
    assert row.index == 7
    assert row.map_auc == pytest.approx(100.0)
    assert row.map_rotation_deg == pytest.approx(0, abs=1e-3)
    assert row.map_translation_m == pytest.approx(0, abs=1e-5)
    assert row.query_rotation_deg == pytest.approx(3.0, abs=1e-3)
    assert row.query_translation_m == pytest.approx(0.2, abs=1e-5)


def test_a_model_sits_the_exam() -> None:
    engine = SceneEngine(VGGT3.build(TINY, "softmax").eval(), RunOptions("cpu"))
    row = localisation_row(engine, drawn_scene(6), [0, 1, 3, 4], [2, 5])
    assert 0 <= row.map_auc <= 100
    assert all(math.isfinite(x) for x in (row.query_rotation_deg, row.query_translation_m))
    assert 0 < row.confidence < 1


def test_only_scenes_that_were_mapped_well_count() -> None:
    good = LocalisationRow(0, 60, 2.0, 0.1, 2.8, 0.14, 0.9)
    bad = LocalisationRow(1, 49.9, 2.0, 0.1, 90, 9, 0.1)
    found = summary([good, bad])
    assert (found["scenes"], found["counted"], found["holds"]) == (2, 1, 1)
    assert found["rotation_ratio"] == pytest.approx(1.4)
    assert summary([replace(good, query_translation_m=0.16)])["holds"] == 0
    assert math.isnan(summary([bad])["holds"])


def test_a_scene_without_a_value_is_left_out_of_its_median() -> None:
    """As where the map could not be aligned, and also where an error is infinite."""
    good = LocalisationRow(0, 60, 2.0, 0.1, 2.8, 0.14, 0.9)
    lost = LocalisationRow(1, 70, *[math.nan] * 4, 0.5)
    far = replace(good, query_translation_m=math.inf)
    found = summary([good, replace(good, query_rotation_deg=3.0), lost])
    assert (found["counted"], found["map_auc"], found["confidence"]) == (3, 60, 0.9)
    assert found["query_rotation_deg"] == pytest.approx(2.9)
    assert summary([far, far])["query_translation_m"] == math.inf
    assert math.isnan(summary([lost])["query_rotation_deg"]) and math.isnan(summary([])["map_auc"])
