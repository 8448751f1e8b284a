"""``vggt3 data render`` as typed: captures with their truth, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vggt3 import cli
from vggt3.data.capture import read_capture
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene

SMALL = ("--data.views", "3", "--data.size", "[28,42]", "--samples", "1")


def run(*words: object) -> int:
    return cli.main(["data", "render", *map(str, words)])


def test_one_scene_is_one_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "room"
    assert run("-o", out, *SMALL, "--seed", 5, "--index", 2, "--data.outdoors", 0) == 0
    assert "3 photos of 42×28 pixels" in capsys.readouterr().out
    capture = read_capture(out)
    assert capture.name == "procedural-5-2" and capture.pose_kind == "ground_truth"
    config = ProceduralConfig(views=3, size=(28, 42), outdoors=0)
    truth = render(draw_scene(config, 5, 2), samples=1)
    torch.testing.assert_close(
        capture.cameras().camera_from_world.float(), truth.camera_from_world[0]
    )
    for view, frame in enumerate(capture.frames):
        depth = frame.depth()
        assert depth is not None
        torch.testing.assert_close(depth, truth.depth[0, view], atol=6e-4, rtol=0)
    assert sorted(p.name for p in tmp_path.rglob(".*")) == []


def test_several_scenes_are_a_folder_of_captures(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    assert run("-o", out, *SMALL, "--scenes", 2, "--index", 7) == 0
    assert sorted(p.name for p in out.iterdir()) == ["000007", "000008"]
    assert len(read_capture(out / "000008").posed) == 3
    assert run("-o", out, *SMALL) == 2
    assert run("-o", out, *SMALL, "--overwrite") == 0
    assert sorted(p.name for p in out.iterdir()) == ["cameras.json", "depth", "images"]


def test_photos_of_a_folder_are_worn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    textures = tmp_path / "textures"
    textures.mkdir()
    Image.new("RGB", (90, 90), (255, 0, 0)).save(textures / "red.png")
    (textures / "bad.jpg").write_text("")
    words = ("--data.textures", textures, "--data.photos", 1, "--data.outdoors", 0)
    assert run("-o", tmp_path / "red", *SMALL, *words) == 0
    assert "skipped texture bad.jpg: no readable image" in capsys.readouterr().err
    images = torch.stack([f.image() for f in read_capture(tmp_path / "red").frames]).float()
    assert float((images[:, 0] > images[:, 2] + 20).float().mean()) > 0.5
    assert run("-o", textures, *SMALL, *words, "--overwrite") == 2
    assert sorted(p.name for p in textures.iterdir()) == ["bad.jpg", "red.png"]


def test_an_end_in_the_middle_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "room"
    assert run("-o", out, *SMALL) == 0
    before = (out / "cameras.json").read_bytes()
    calls = []

    def full(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return render(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("vggt3.commands.data.render_scene", full)
    assert run("-o", out, *SMALL, "--scenes", 3, "--overwrite") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["room"]
    assert (out / "cameras.json").read_bytes() == before


BAD = [
    (("--scenes", "0"), 2, "--scenes must be at least 1"),
    (("--samples", "2"), 2, "--samples must be 1 or 4"),
    (("--seed", "-1"), 2, "--seed must be at least 0"),
    (("--data.viws", "3"), 2, "did you mean '--data.views'"),
    (("--data.views", "few"), 2, "--data.views must be a whole number, got 'few'"),
    (("--data.size", "[7,28]"), 2, "--data.size must be at least 14"),
    (("--data.textures", "NOWHERE"), 1, "texture folder NOWHERE must be a folder"),
    (("--data.bank", "3"), 2, "--data.bank"),
]


@pytest.mark.parametrize(("words", "code", "message"), BAD)
def test_bad_input(
    words: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("-o", tmp_path / "out", *words) == code
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_others_wrote_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-o", tmp_path / "room", *SMALL) == 0
    listing = tmp_path / "room" / "cameras.json"
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps({**content, "pose_source": "a survey"}))
    assert run("-o", tmp_path / "room", *SMALL, "--overwrite") == 2
    listing.write_text(json.dumps(content))
    (tmp_path / "room" / "thesis.tex").write_text("")
    assert run("-o", tmp_path / "room", *SMALL, "--overwrite") == 2
    told = capsys.readouterr().err
    assert "a capture that vggt3 did not render" in told and "'thesis.tex'" in told
    config = tmp_path / "config.yaml"
    config.write_text("data: {views: 2, size: [28, 28]}\nsamples: 1\n")
    assert run("-o", tmp_path / "other", "--config", config) == 0
    assert len(read_capture(tmp_path / "other").frames) == 2
