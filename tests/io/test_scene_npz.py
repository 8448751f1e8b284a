"""scene.npz: numpy reads it, it is written view by view, and damage is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.io.drawn_scene import drawn_scene
from vggt3.checks import DataError, UsageError
from vggt3.io import SceneArchive, SceneArchiveWriter
from vggt3.types import DenseView

FIELDS = ("depth", "depth_confidence", "points", "points_confidence")


def write(path: Path, views: list[DenseView], **options: bool) -> Path:
    with SceneArchiveWriter(path, **options) as archive:
        for view in views:
            archive.add(f"photos/v {view.index}.jpg", view)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_numpy_reads_one_member_a_view_and_kind(tmp_path: Path, half: bool, compress: bool) -> None:
    views = drawn_scene(3)[2]
    path = write(tmp_path / "scene.npz", views, half=half, compress=compress)
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == {
            f"{kind}/photos/v {n}.jpg" for kind in FIELDS for n in range(3)
        }
        points = arrays["points/photos/v 1.jpg"]
        assert points.dtype == (np.float16 if half else np.float32)
        tolerance = 2e-3 if half else 0
        np.testing.assert_allclose(points, views[1].points.numpy(), tolerance, tolerance)


def test_views_come_back_one_by_one_in_scene_order(tmp_path: Path) -> None:
    views = drawn_scene(3)[2]
    path = write(tmp_path / "scene.npz", views[::-1])
    with SceneArchive(path) as archive:
        assert archive.names[0] == "photos/v 2.jpg"
    order = [f"photos/v {n}.jpg" for n in range(3)]
    with SceneArchive(path, order) as archive:
        assert len(archive) == 3
        for (name, found), view in zip(archive, views, strict=True):
            assert name == order[view.index] and found.index == view.index
            for field in FIELDS:
                assert torch.equal(getattr(found, field), getattr(view, field))
        assert torch.equal(archive["photos/v 1.jpg"].depth, views[1].depth)
        with pytest.raises(UsageError, match=r"did you mean 'photos/v"):
            archive["photos/v1.jpg"]


def test_only_the_view_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "scene.npz", drawn_scene(3)[2])
    read: list[str] = []
    with SceneArchive(path) as archive:
        load = archive._load
        monkeypatch.setattr(archive, "_load", lambda member: read.append(member) or load(member))
        next(iter(archive))
    assert read == [f"{kind}/photos/v 0.jpg" for kind in FIELDS]


def test_half_holds_large_values_at_its_end(tmp_path: Path) -> None:
    depth = torch.full((14, 14), 1e6)
    view = DenseView(0, depth, depth, depth[..., None].expand(14, 14, 3), depth)
    with SceneArchive(write(tmp_path / "s.npz", [view], half=True)) as archive:
        assert archive.names and archive[archive.names[0]].points.max() == 65504


def test_the_same_scene_gives_the_same_bytes(tmp_path: Path) -> None:
    views = drawn_scene(2)[2]
    first, second = (write(tmp_path / f"{n}.npz", views) for n in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_a_name_comes_once(tmp_path: Path) -> None:
    view = drawn_scene(1)[2][0]
    with (
        SceneArchiveWriter(tmp_path / "s.npz") as archive,
        pytest.raises(UsageError, match="view name must be new"),
    ):
        archive.add("a", view)
        archive.add("a", view)


def test_files_that_are_no_scene(tmp_path: Path) -> None:
    whole = write(tmp_path / "s.npz", drawn_scene(1)[2]).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-100])
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("cut.npz", "text.npz", "other.npz", "array.npy", "empty.npz", "missing.npz"):
        with pytest.raises(DataError, match=rf"'.*{name}' must be a scene\.npz, got "):
            SceneArchive(tmp_path / name)
    with pytest.raises(DataError, match="got none of 'depth/b'"):
        SceneArchive(tmp_path / "s.npz", ["b"])


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.npz", drawn_scene(1)[2])
    data = bytearray(path.read_bytes())
    data[2000:2100] = b"\xff" * 100
    path.write_bytes(data)
    with (
        SceneArchive(path) as archive,
        pytest.raises(DataError, match=r"a damaged 'depth/photos/v 0\.jpg'"),
    ):
        list(archive)
