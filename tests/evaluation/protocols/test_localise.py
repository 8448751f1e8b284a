"""Localisation: the map aligns, the queries are scored, and the model is asked one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.layouts import WRITERS, Drawn, drawn, write_sevenscenes
from tests.evaluation.protocols.oracle import LONG_SIDE, MOTION, engine
from tests.evaluation.protocols.test_points import run
from vggt3.checks import DataError
from vggt3.data.readers.record import Scene
from vggt3.evaluation.loading import load_views
from vggt3.evaluation.protocols.base import Answer
from vggt3.evaluation.protocols.catalogue import protocol
from vggt3.evaluation.protocols.localise import Localisation, split_at
from vggt3.evaluation.protocols.selection import Chosen, Every
from vggt3.evaluation.protocols.trial import Trial, TrialOptions
from vggt3.geometry.camera import decode_pose
from vggt3.types import Cameras, Views


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames: even ones map (train), odd ones are asked (test)."""
    root = tmp_path_factory.mktemp("places")
    WRITERS["wayspots"](root, drawn(views=8))
    return root


def knows(monkeypatch: pytest.MonkeyPatch, off: float = 0.0) -> None:
    def answer(self: Trial, scene: Scene, chosen: Chosen) -> Answer:
        poses = scene.cameras(chosen.views).camera_from_world
        moved = MOTION.apply_to_cameras(poses)
        last = split_at(tuple(view.name for view in scene.views))
        moved[last:, 0, 3] += off * MOTION.scale
        eye = torch.eye(3).expand(len(poses), 3, 3)
        return Answer(Cameras(moved, eye, ()), {})

    monkeypatch.setattr(Trial, "answer", answer)


def trial(folder: Path, every: int = 1) -> Trial:
    chosen = protocol("wayspots-localise")
    assert isinstance(chosen, Localisation)
    small = Localisation(
        chosen.name, "", "wayspots", "test", (), Every(every), "train", Every(every)
    )
    return Trial(engine(), small, folder, TrialOptions(long_side=LONG_SIDE))


def test_which_views(folder: Path) -> None:
    (scene,) = trial(folder).scenes.values()
    assert scene.name == "bears" and split_at(tuple(v.name for v in scene.views)) == 4
    assert scene.views[0].name == "map: bears train frame_00000"
    assert scene.views[4].name == "query: bears test frame_00001"
    (scene,) = trial(folder, every=3).scenes.values()
    assert [v.name[-2:] for v in scene.views] == ["00", "06", "01", "07"]


def test_the_truth_scores_full_marks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch)
    (row,) = trial(folder).run().rows.values()
    assert row.scores["rotation"] < 1e-6 and row.scores["translation"] < 1e-6
    assert row.scores["under 10"] == 100 and row.scores["map translation"] < 1e-6
    assert (row.scores["views"], row.scores["queries"]) == (4, 4)


def test_queries_that_are_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By 15 cm, in the map's own unit: the map aligns, the queries are scored."""
    knows(monkeypatch, off=0.15)
    (row,) = trial(folder).run().rows.values()
    assert row.scores["translation"] == pytest.approx(0.15, abs=1e-6)
    assert row.scores["map translation"] < 1e-6 and row.scores["rotation"] < 1e-6
    assert (row.scores["under 10"], row.scores["under 20"]) == (0, 100)


def test_a_map_that_cannot_be_aligned_localises_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knows(monkeypatch)
    (row,) = trial(folder, every=3).run().rows.values()  # two map views
    assert row.scores["under 30"] == 0 and row.scores["rotation"] != row.scores["rotation"]


def test_queries_are_read_alone_from_the_maps_memory(folder: Path) -> None:
    """What the protocol asks is the model's own reading: map, then one query at a time."""
    sitting = trial(folder)
    (scene,) = sitting.scenes.values()
    found = sitting.answer(scene, sitting.protocol.choose(scene))
    images = load_views(scene, range(8), LONG_SIDE).images
    model = sitting.engine.model
    with torch.inference_mode():
        whole = model(Views.from_list(images[:4]))
        pose, _ = decode_pose(whole.pose[0], (56, 42))
        torch.testing.assert_close(found.cameras.camera_from_world[:4], pose, atol=1e-5, rtol=1e-4)
        for n in range(4, 8):
            alone = model(Views.from_list(images[n : n + 1]), memory=whole.memory)
            pose, _ = decode_pose(alone.pose[0, 0], (56, 42))
            there = found.cameras.camera_from_world[n]
            torch.testing.assert_close(there, pose, atol=1e-5, rtol=1e-4)
    assert found.confidence is not None and found.confidence.shape == (4,)


def test_seven_scenes_join_their_sequences(tmp_path: Path) -> None:
    """A place's train sequences are one map; its test sequences are asked of it."""
    scene = drawn()
    write_sevenscenes(tmp_path, scene)
    with pytest.raises(DataError, match="split train, got none"):
        protocol("7scenes-localise").find(tmp_path)
    more = Drawn(scene.images, scene.depth, scene.pose, scene.k)
    for name in ("seq-01", "seq-05"):
        write_sevenscenes(tmp_path / "beside", more)
        (tmp_path / "beside/chess/seq-03").rename(tmp_path / "chess" / name)
    (found,) = protocol("7scenes-localise").find(tmp_path)
    names = [view.name for view in found.views]
    assert names == [
        "map: chess/seq-01 train frame-000000",
        "query: chess/seq-03 test frame-000000",
        "query: chess/seq-05 test frame-000000",
    ]


def test_the_published_protocols() -> None:
    seven, way = protocol("7scenes-localise"), protocol("wayspots-localise")
    assert isinstance(seven, Localisation) and isinstance(way, Localisation)
    assert (seven.map_views, seven.views) == (Every(50), Every(20))
    assert (way.map_views, way.views) == (Every(3), Every(20))
    assert len(seven.scenes) == 7 and len(way.scenes) == 10
    assert (seven.map_split, seven.split) == ("train", "test")


def test_as_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("wayspots-localise", "--data", folder) == 0
    told = capsys.readouterr()
    for text in ("rotation error °", "(10°, 10 cm) %", "queries", "bears"):
        assert text in told.out, text
    assert "1 of the 10 scenes" in told.err
