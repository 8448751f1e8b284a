"""cameras.json: what we write is what the captures have, and bad files are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.io.drawn_scene import drawn_scene
from vggt3.checks import DataError, UsageError
from vggt3.io import load_cameras_json, write_cameras_json
from vggt3.types import Cameras


def posed(**changes: Any) -> dict[str, Any]:
    frame = {
        "file": "images/a.jpg",
        "width": 64,
        "height": 48,
        "fx": 50.0,
        "fy": 51.0,
        "cx": 32.0,
        "cy": 24.0,
        "camera_to_world": [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]],
    }
    return {**frame, **changes}


def write(folder: Path, content: object) -> Path:
    path = folder / "cameras.json"
    path.write_text(json.dumps(content))
    return path


def test_round_trip_at_the_original_size(tmp_path: Path) -> None:
    photos, cameras, _ = drawn_scene(3)
    path = tmp_path / "cameras.json"
    full = cameras.resized(photos.original_sizes)
    assert write_cameras_json(path, full, photos.names, name="drawn") == 0
    content = json.loads(path.read_text())
    assert list(content) == ["name", "pose_kind", "scale", "frames"]
    assert (content["pose_kind"], content["scale"]) == ("estimated", "arbitrary")
    assert list(content["frames"][0]) == [
        *("file", "width", "height", "fx", "fy", "cx", "cy", "camera_to_world")
    ]
    assert content["frames"][0]["cx"] == content["frames"][0]["width"] / 2
    read = load_cameras_json(path)
    assert (read.name, read.pose_kind, read.metric) == ("drawn", "estimated", False)
    again = read.cameras()
    assert again.sizes == photos.original_sizes
    torch.testing.assert_close(
        again.camera_from_world.float(), cameras.camera_from_world, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(again.intrinsics.float(), full.intrinsics)


def test_one_scene_of_a_batch_is_accepted(tmp_path: Path) -> None:
    photos, cameras, _ = drawn_scene(2)
    batched = Cameras(cameras.camera_from_world[None], cameras.intrinsics[None], cameras.sizes)
    write_cameras_json(tmp_path / "c.json", batched, photos.names, name="drawn")
    assert len(load_cameras_json(tmp_path / "c.json").posed) == 2


def test_a_camera_that_is_none_has_no_pose(tmp_path: Path) -> None:
    photos, cameras, _ = drawn_scene(4)
    cameras.intrinsics[1, 0, 0] = float("inf")
    cameras.camera_from_world[2, 0, 3] = float("nan")
    cameras.intrinsics[3, 1, 1] = -4.4  # a field of view above π
    path = tmp_path / "cameras.json"
    assert write_cameras_json(path, cameras, photos.names, name="drawn") == 3
    read = load_cameras_json(path)
    assert [frame.world_from_camera is None for frame in read.frames] == [False, True, True, True]
    assert read.frames[1].size == photos.sizes[1]


def test_frames_are_found_by_file_or_by_their_last_part(tmp_path: Path) -> None:
    frames = [posed(), posed(file="images/b.jpg"), posed(file="other/b.jpg")]
    read = load_cameras_json(write(tmp_path, {"frames": frames}))
    assert read.frame("a.jpg") is read.frame("images/a.jpg") is read.frames[0]
    assert read.frame("other/b.jpg") is read.frames[2]
    with pytest.raises(UsageError, match=r"did you mean 'images/a\.jpg'"):
        read.frame("images/aa.jpg")
    with pytest.raises(UsageError, match=r"named once in cameras\.json, got 'b\.jpg' 2×"):
        read.frame("b.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "an object with a list 'frames', got list"),
        ({"frames": 3}, "an object with a list 'frames'"),
        ({"frames": [3]}, "an object as frame 0, got int"),
        ({"frames": [posed(width=None)]}, r"'width' in frame 0 \('images/a\.jpg'\), got None"),
        ({"frames": [posed(height=True)]}, "'height' in frame 0"),
        ({"frames": [posed(width=0)]}, "a positive size"),
        ({"frames": [posed(fx=-1)]}, "fx, fy above 0"),
        ({"frames": [posed(fy="wide")]}, "fx, fy above 0"),
        ({"frames": [posed(cx=None)]}, "cx, cy"),
        ({"frames": [posed(camera_to_world=None)]}, "'camera_to_world'"),
        ({"frames": [posed(camera_to_world=[[1, 2], [3]])]}, "'camera_to_world'"),
        ({"frames": [posed(camera_to_world=torch.eye(3).tolist())]}, "4×4"),
        ({"frames": [posed(camera_to_world=(2 * torch.eye(4)).tolist())]}, "from a rotation"),
        ({"frames": [posed(camera_to_world=(-torch.eye(4)).tolist())]}, "got a reflection"),
        ({"frames": [], "pose_kind": "guessed"}, "'pose_kind' of estimated, ground_truth"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_cameras_json(write(tmp_path, content))
    assert "cameras.json" in str(caught.value)


def test_files_that_are_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="readable file, got No such file"):
        load_cameras_json(tmp_path / "cameras.json")
    (tmp_path / "cameras.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="must be JSON"):
        load_cameras_json(tmp_path / "cameras.json")


def test_no_pose_at_all(tmp_path: Path) -> None:
    frames = [{"file": "a.jpg", "width": 64, "height": 48}]
    read = load_cameras_json(write(tmp_path, {"pose_kind": "none", "frames": frames}))
    assert read.posed == () and read.scale is None
    with pytest.raises(DataError, match="at least one pose, got none"):
        read.cameras()


def test_all_captures_can_be_read(captures_dir: Path) -> None:
    files = sorted(captures_dir.glob("*/cameras.json"))
    assert len(files) >= 10
    for path in files:
        read = load_cameras_json(path)
        assert read.frames
        assert (read.pose_kind == "none") == (not read.posed)
        for frame in read.frames:
            assert (path.parent / frame.file).is_file()
            assert frame.depth is None or (path.parent / frame.depth).is_file()
    assert load_cameras_json(captures_dir / "slambook_rgbd" / "cameras.json").metric
