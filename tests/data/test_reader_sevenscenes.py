"""7-Scenes: literal bytes whose answer is known by hand, splits, and what is wrong is said."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.literal import COLOUR_4X3, DEPTH_4X3, write
from vggt3.checks import DataError, UsageError
from vggt3.data.readers.layout import read_scenes
from vggt3.geometry.camera import camera_centres

# A quarter turn about z (x → y), then to (1, 2, 3): the camera's centre is (1, 2, 3).
POSE = b"0 -1 0 1\t\n 1 0 0 2\r\n0 0 1 3\n0 0 0 1\n"


def frame(folder: Path, number: int = 0, pose: bytes = POSE, depth: str = "depth.proj") -> None:
    stem = folder / f"frame-{number:06d}"
    write(stem.with_name(f"{stem.name}.color.png"), COLOUR_4X3)
    write(stem.with_name(f"{stem.name}.{depth}.png"), DEPTH_4X3)
    write(stem.with_name(f"{stem.name}.pose.txt"), pose)


def test_by_hand(tmp_path: Path) -> None:
    frame(tmp_path / "heads" / "seq-01")
    (scene,) = read_scenes("sevenscenes", tmp_path)
    assert (scene.name, scene.unit, scene.notes) == ("heads/seq-01", "m", ())
    (view,) = pickle.loads(pickle.dumps(scene)).views  # as a worker gets it
    assert view.name == "frame-000000" and view.size == (3, 4)
    assert view.image()[:, 0, 0].tolist() == [255, 0, 0]
    assert view.image()[:, 2, 3].tolist() == [0, 0, 255]
    # 1234 mm, 0 (nothing), 65535 (nothing), 10001 mm (too far); 10000 mm is the last that counts.
    assert view.depth_map().tolist() == [
        [pytest.approx(1.234), 0, 0, 0],
        [10.0, pytest.approx(0.001), 2.0, 2.0],
        [2.0, 2.0, 2.0, 2.0],
    ]
    pose = view.pose()
    assert camera_centres(pose).tolist() == [1, 2, 3]
    # World point (1, 2, 4) is one metre ahead; (1, 3, 3) is where the camera's x points.
    point = torch.tensor([[1.0, 2, 4], [1, 3, 3]]).double()
    seen = point @ pose[:, :3].T + pose[:, 3]
    torch.testing.assert_close(seen, torch.tensor([[0.0, 0, 1], [1, 0, 0]]).double())
    # 525 at 640 pixels across is 3.28125 at 4.
    assert view.intrinsics().tolist() == [[3.28125, 0, 2], [0, 3.28125, 1.5], [0, 0, 1]]


def test_a_sequence_is_a_scene_and_splits_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4, 5, 6):
        frame(tmp_path / "chess" / f"seq-{number:02d}")
        frame(tmp_path / "mine" / f"seq-{number:02d}")
    (tmp_path / "mine" / "TestSplit.txt").write_text("sequence2\r\nsequence6\r\n")
    (tmp_path / "mine" / "TrainSplit.txt").write_text("sequence1\n")
    names = [scene.name for scene in read_scenes("sevenscenes", tmp_path)]
    assert names == ["chess/seq-03", "chess/seq-05", "mine/seq-02", "mine/seq-06"]
    train = [scene.name for scene in read_scenes("sevenscenes", tmp_path, "train")]
    assert train == ["chess/seq-01", "chess/seq-02", "chess/seq-04", "chess/seq-06", "mine/seq-01"]
    assert len(read_scenes(None, tmp_path, "all")) == 12
    # One scene's folder will do.
    assert len(read_scenes("sevenscenes", tmp_path / "chess")) == 2


def test_depth_that_is_not_registered_is_said(tmp_path: Path) -> None:
    frame(tmp_path / "fire" / "seq-03", depth="depth")
    (scene,) = read_scenes("sevenscenes", tmp_path)
    assert "not registered to the colour image" in scene.notes[0]
    assert scene.views[0].depth_map()[0, 0] == pytest.approx(1.234)


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (b"nan 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "pose in .*frame-000000.pose.txt must be finite"),
        (b"1 0 0 0 0 1 0 0 0 0 1 0", "hold a 4×4 matrix, got 12 numbers"),
        (b"2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "hold a rotation"),
        (b"1 0 0 0 0 1 0 0 0 0 -1 0 0 0 0 1", "hold a rotation, got a mirror image"),
        (b"one", "hold numbers only"),
    ],
)
def test_wrong_poses_are_said(tmp_path: Path, pose: bytes, message: str) -> None:
    frame(tmp_path / "heads" / "seq-01", pose=pose)
    (scene,) = read_scenes("sevenscenes", tmp_path)
    with pytest.raises(DataError, match=message):
        scene.views[0].pose()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "heads" / "seq-01"
    frame(folder)
    (folder / "frame-000000.pose.txt").unlink()
    (folder / "frame-000000.depth.proj.png").unlink()
    (scene,) = read_scenes("sevenscenes", tmp_path)
    with pytest.raises(DataError, match="heads/seq-01 must have pose, depth, got no pose and no"):
        scene.require(("pose", "depth"), [0])


def test_broken_images_and_other_shapes_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "heads" / "seq-01"
    frame(folder)
    write(folder / "frame-000000.color.png", COLOUR_4X3[:60])
    (scene,) = read_scenes("sevenscenes", tmp_path)
    with pytest.raises(DataError, match=r"frame-000000\.color.png must be a"):
        scene.views[0].image()
    Image.new("RGB", (8, 8)).save(folder / "frame-000000.color.png")
    with pytest.raises(DataError, match=r"proportions of 480×640 .* got 8×8"):
        scene.views[0].intrinsics()


def test_another_layout_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a folder, got no such folder"):
        read_scenes("sevenscenes", tmp_path / "none")
    with pytest.raises(DataError, match=r"hold 7-Scenes \(scene/seq-XX.*a folder with nothing"):
        read_scenes("sevenscenes", tmp_path)
    frame(tmp_path / "heads" / "seq-02")
    with pytest.raises(DataError, match="hold scenes of 7-Scenes, split test, got none"):
        read_scenes("sevenscenes", tmp_path)
    with pytest.raises(UsageError, match="did you mean 'sevenscenes'"):
        read_scenes("sevenscene", tmp_path)
    with pytest.raises(UsageError, match="split must be one of"):
        read_scenes("sevenscenes", tmp_path, "val")
