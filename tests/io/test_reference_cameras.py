"""Reference cameras from literal files, with centres worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vggt3 import checks
from vggt3.io.reference_cameras import ReferenceCameras, read_reference

# A camera that looks along the world's x (turned by 90° about y), centre (1, 2, 3).
# world-from-camera, OpenCV: the camera's z is the world's x, its x the world's -z.
TURNED = [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]

COLMAP_IMAGES = """# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME
1 1 0 0 0 -4 -5 -6 1 plain.jpg

2 0.7071067811865476 0 -0.7071067811865476 0 3 -2 -1 1 sub/turned.jpg

"""
"""camera-from-world. The first: R = I, t = -(4, 5, 6). The second: R takes the world's x to the
camera's z and the world's -z to the camera's x; t = -R (1, 2, 3) = -(-3, 2, 1)."""


def colmap(folder: Path, images: str = COLMAP_IMAGES) -> Path:
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text("1 PINHOLE 640 480 500 500 320 240\n")
    (folder / "images.txt").write_text(images)
    (folder / "points3D.txt").write_text("")
    return folder


def test_cameras_json(tmp_path: Path) -> None:
    entry = {"file": "images/a.jpg", "width": 640, "height": 480, "fx": 500, "fy": 500,
             "cx": 320, "cy": 240, "camera_to_world": TURNED}  # fmt: skip
    unposed = {"file": "images/b.jpg", "width": 640, "height": 480}
    content = {"scale": "metric", "frames": [entry, unposed]}
    (tmp_path / "cameras.json").write_text(json.dumps(content))
    for place in (tmp_path, tmp_path / "cameras.json"):
        found = read_reference(place)
        assert found.names == ("images/a.jpg",)
        assert found.world_from_camera.tolist() == [TURNED[:3]]
        assert found.metric


def test_nerfstudio(tmp_path: Path) -> None:
    """Its axes are OpenGL's: y and z of the camera are turned over, the centre stays."""
    opengl = [[0, 0, -1, 1], [0, -1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]
    frames = [{"file_path": "./images/a.jpg", "transform_matrix": opengl}]
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 500, "frames": frames}))
    for place in (tmp_path, tmp_path / "transforms.json"):
        found = read_reference(place)
        assert found.names == ("images/a.jpg",)
        assert found.world_from_camera.tolist() == [TURNED[:3]]
        assert not found.metric


def test_colmap(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    colmap(tmp_path / "sparse" / "0")
    for place in (tmp_path, tmp_path / "sparse" / "0"):
        found = read_reference(place)
        assert found.names == ("plain.jpg", "sub/turned.jpg")
        expected = torch.tensor([[4.0, 5, 6], [1, 2, 3]]).double()
        assert torch.allclose(found.centres, expected, atol=1e-12)
        turned = torch.tensor(TURNED[:3]).double()
        assert torch.allclose(found.world_from_camera[1], turned, atol=1e-12)


def test_names_are_matched_whole_or_by_their_last_part() -> None:
    names = ("images/a.jpg", "left/b.jpg", "right/b.jpg", "c.jpg")
    known = ReferenceCameras(Path("x"), names, torch.zeros(4, 3, 4))
    assert known.matched(["c.jpg", "a.jpg", "d.jpg"]) == ([0, 1], [3, 0])
    assert known.matched(["right/b.jpg", "b.jpg"]) == ([0], [2])  # "b.jpg" could be either
    assert known.matched(["1/a.jpg", "2/a.jpg"]) == ([], [])
    assert known.ambiguous(["c.jpg", "b.jpg", "d.jpg", "1/a.jpg", "2/a.jpg"]) == [
        "b.jpg", "1/a.jpg", "2/a.jpg",
    ]  # fmt: skip
    assert known.ambiguous(["a.jpg", "left/b.jpg"]) == []
    twice = ReferenceCameras(Path("x"), ("a.jpg", "a.jpg"), torch.zeros(2, 3, 4))
    assert (twice.matched(["a.jpg"]), twice.ambiguous(["a.jpg"])) == (([], []), ["a.jpg"])


def bad(folder: Path) -> list[tuple[object, str]]:
    (folder / "empty").mkdir()
    (folder / "other.json").write_text('{"frames": []}')
    (folder / "text.json").write_text("cameras")
    (folder / "list.json").write_text("[1]")
    (folder / "photo.jpg").write_text("x")
    nan = '{"frames": [{"file_path": "a", "transform_matrix": [[NaN]]}]}'
    (folder / "nan.json").write_text(nan)
    return [
        (folder / "none", "existing file or folder"),
        (folder / "empty", "hold a cameras.json, a COLMAP model's folder or a transforms.json"),
        (folder / "photo.jpg", "be a cameras.json"),
        (folder / "other.json", "have a posed frame, got none"),
        (folder / "text.json", "be JSON"),
        (folder / "list.json", "be an object with a list 'frames'"),
        (folder / "nan.json", "finite 4×4 matrix in frame 0"),
    ]


def test_bad_references(tmp_path: Path) -> None:
    for path, message in bad(tmp_path):
        with pytest.raises(checks.DataError, match=message):
            read_reference(str(path))


def test_a_broken_colmap_model(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    with pytest.raises(checks.DataError, match=r"be a whole COLMAP model|have a posed image"):
        read_reference(colmap(tmp_path / "model", "1 1 0 0\n"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "images.bin").write_bytes(b"\x05")
    with pytest.raises(checks.DataError, match="be a whole COLMAP model"):
        read_reference(tmp_path / "bin")
