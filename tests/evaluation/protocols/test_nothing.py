"""What cannot be scored, or drawn, is an error with an exit code, and not a table of dashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.layouts import WRITERS, Drawn, drawn
from tests.evaluation.protocols.test_points import run
from vggt3.evaluation.protocols.trial import Trial


def blind() -> Drawn:
    """A scene whose depth nobody knows."""
    scene = drawn()
    return Drawn(scene.images, 0 * scene.depth, scene.pose, scene.k)


@pytest.mark.parametrize(("name", "layout"), [("depth", "bonn"), ("points", "scannet")])
def test_data_without_any_known_depth_is_an_error(
    name: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[layout](tmp_path / "data", blind())
    words = (name, "--data", tmp_path / "data", "-o", tmp_path / "run.json")
    for _ in range(2):  # scored now, and known from the file
        assert run(*words) == 1
        told = capsys.readouterr()
        assert "must have known depth in the views that are scored, got none in any" in told.err
        assert "mean [95 %" not in told.out


def test_one_scene_without_depth_among_others_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["bonn"](tmp_path / "data", drawn())
    WRITERS["bonn"](tmp_path / "other", blind())
    (inner,) = (tmp_path / "other").iterdir()
    inner.rename(tmp_path / "data" / "rgbd_bonn_dark")
    assert run("depth", "--data", tmp_path / "data", "-o", tmp_path / "run.json") == 0
    told = capsys.readouterr()
    assert "1 of 2 scenes must have known depth" in told.err and "to count: dark" in told.err
    summary = json.loads((tmp_path / "run.json").read_text())["summary"]["depth"]
    assert summary["absrel"]["scenes"] == 1


def test_captures_with_depth_of_some_views_are_scored_by_those(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name, known in (("full", 4), ("partly", 1), ("without", 0)):
        WRITERS["captures"](data, drawn())
        listing = (data / "room").rename(data / name) / "cameras.json"
        content = json.loads(listing.read_text())
        for frame in content["frames"][known:]:
            del frame["depth"]
        listing.write_text(json.dumps(content))
    assert run("points", "--data", data, "-o", tmp_path / "run.json") == 0
    assert "1 of 3 scenes must have known depth" in capsys.readouterr().err
    rows = json.loads((tmp_path / "run.json").read_text())["sets"]["points"]
    points = {row["scene"]: row["scores"]["points"] for row in rows}
    assert points["full"] > points["partly"] > points["without"] == 0


def test_pictures_are_looked_at_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["scannet"](tmp_path / "data", drawn())
    monkeypatch.setattr(Trial, "answer", lambda *_: pytest.fail("the model was asked"))
    (tmp_path / "file").write_text("mine")
    for name, pictures, said in (
        ("points", tmp_path / "file", "must be a folder, got a file"),
        ("points", tmp_path / "file" / "below", "be in a folder that can be written, got a file"),
        ("pose", tmp_path / "new", "--pictures must be left out: pose compares no clouds"),
    ):
        assert run(name, "--data", tmp_path / "data", "--pictures", pictures) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
