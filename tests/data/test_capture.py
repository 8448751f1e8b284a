"""Capture folders: what is written is read again, and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vggt3.checks import DataError, UsageError
from vggt3.data.capture import not_rendered, read_capture, write_capture
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scene import SceneBatch
from vggt3.data.procedural.scenes import draw_scene
from vggt3.geometry.camera import relative_poses


@pytest.fixture(scope="module")
def batch() -> SceneBatch:
    config = ProceduralConfig(views=3, size=(28, 42), outdoors=1.0)
    return render(draw_scene(config, 0, 1), samples=1)


@pytest.mark.parametrize("image_format", ["jpg", "png"])
def test_round_trip(batch: SceneBatch, tmp_path: Path, image_format: str) -> None:
    folder = write_capture(tmp_path / "yard", batch, image_format=image_format)  # type: ignore[arg-type]
    capture = read_capture(folder)
    assert capture.name == "yard" and capture.pose_kind == "ground_truth"
    assert capture.scale is not None and capture.scale.startswith("metric")
    assert len(capture.frames) == len(capture.posed) == 3
    cameras = capture.cameras()
    assert cameras.sizes == ((28, 42),) * 3
    torch.testing.assert_close(cameras.camera_from_world.float(), batch.camera_from_world[0])
    torch.testing.assert_close(cameras.intrinsics, batch.intrinsics[0])
    for view, frame in enumerate(capture.frames):
        wanted = (batch.images[0, view] * 255).round().to(torch.uint8)
        difference = (frame.image().float() - wanted.float()).abs().mean()
        assert float(difference) < (0.01 if image_format == "png" else 6)
        depth = frame.depth()
        assert depth is not None
        near = batch.depth[0, view] < 65.5
        torch.testing.assert_close(depth[near], batch.depth[0, view][near], atol=0.00051, rtol=0)
        assert (depth[~batch.valid[0, view]] == 0).all()


def test_keys_are_the_ecosystems(batch: SceneBatch, tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "a", batch)
    content = json.loads((folder / "cameras.json").read_text())
    assert {"name", "pose_kind", "scale", "frames"} <= set(content)
    frame = content["frames"][0]
    assert set(frame) == {
        "file", "width", "height", "fx", "fy", "cx", "cy", "camera_to_world", "depth",
    }  # fmt: skip
    assert frame["camera_to_world"][3] == [0, 0, 0, 1]


def test_a_folder_with_files_is_refused(batch: SceneBatch, tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "a", batch)
    with pytest.raises(UsageError, match="an empty or a new folder"):
        write_capture(folder, batch)


def test_what_was_rendered_is_known_again(batch: SceneBatch, tmp_path: Path) -> None:
    write_capture(tmp_path / "two" / "a", batch)
    write_capture(tmp_path / "two" / "b", batch)
    assert not_rendered(tmp_path / "two" / "a") is None
    assert not_rendered(tmp_path / "two") is None
    (tmp_path / "two" / "b" / "notes.txt").write_text("mine")
    assert "'notes.txt'" in (not_rendered(tmp_path / "two") or "")
    assert "other things" in (not_rendered(tmp_path) or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "readable JSON"),
        ("[]", "must list frames"),
        ('{"frames": []}', "must list frames"),
        ('{"frames": [{"file": "a.jpg"}]}', "frame 0"),
        ('{"frames": [{"file": "../../a.jpg", "width": 1, "height": 1}]}', "lie in the capture"),
        (
            '{"frames": [{"file": "a", "width": 1, "height": 1, "fx": 1, "fy": 1, "cx": 1,'
            ' "cy": 1, "camera_to_world": [[1]]}]}',
            "4×4",
        ),
    ],
)
def test_a_damaged_listing_is_said(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_capture(tmp_path)


def test_poses_far_from_the_origin_keep_their_digits(batch: SceneBatch, tmp_path: Path) -> None:
    write_capture(tmp_path / "c", batch)
    listing = tmp_path / "c" / "cameras.json"
    content = json.loads(listing.read_text())
    near = read_capture(tmp_path / "c").cameras().camera_from_world
    for entry in content["frames"]:
        for row, offset in enumerate((465000, 5428000, 200)):
            entry["camera_to_world"][row][3] += offset
    listing.write_text(json.dumps(content))
    far = read_capture(tmp_path / "c").cameras().camera_from_world
    assert far.dtype == torch.float64
    torch.testing.assert_close(relative_poses(far), relative_poses(near), atol=1e-6, rtol=0)


def test_a_missing_folder_and_an_unreadable_photo_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cameras\.json must be a readable"):
        read_capture(tmp_path / "nowhere")
    (tmp_path / "a.jpg").write_text("not a photo")
    (tmp_path / "cameras.json").write_text(
        '{"frames": [{"file": "a.jpg", "width": 1, "height": 1}]}'
    )
    capture = read_capture(tmp_path)
    assert capture.posed == () and capture.pose_kind == "none"
    with pytest.raises(DataError, match="readable image"):
        capture.frames[0].image()
    with pytest.raises(DataError, match="have posed frames"):
        capture.cameras()


def test_the_real_captures_are_read(captures_dir: Path) -> None:
    posed = {
        "slambook_rgbd": 5, "strecha_fountain_p11": 11, "imc_reichstag": 10, "video_room": 0,
    }  # fmt: skip
    for name, count in posed.items():
        capture = read_capture(captures_dir / name)
        assert capture.name == name and len(capture.posed) == count
        frame = capture.frames[0]
        assert tuple(frame.image().shape) == (3, *frame.size)
        assert (frame.depth() is not None) == (name == "slambook_rgbd")
