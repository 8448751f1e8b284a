"""The four files of a scene, from results that come in any order."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from tests.io.drawn_scene import drawn_scene
from vggt3.checks import UsageError
from vggt3.io import (
    SceneArchive,
    SceneOptions,
    SceneWriter,
    load_cameras_json,
    read_cloud,
    staged,
)


def write(folder: Path, order: list[int], options: SceneOptions | None = None) -> None:
    photos, cameras, dense = drawn_scene(3, ((28, 42), (42, 28)))
    with staged(folder) as partial, SceneWriter(partial, photos, options) as writer:
        writer.cameras(cameras)
        for index in order:
            writer.add(dense[index])
        summary = writer.finish()
    assert summary.unposed == 0 and summary.point_count > 0


def test_a_scene(tmp_path: Path) -> None:
    out = tmp_path / "garden"
    write(out, [2, 0, 1], SceneOptions(max_points=500))
    assert sorted(path.name for path in out.iterdir()) == [
        *("cameras.json", "points.ply", "preview.png", "scene.npz")
    ]
    photos, _, dense = drawn_scene(3, ((28, 42), (42, 28)))
    cameras = load_cameras_json(out / "cameras.json")
    assert cameras.name == "garden"
    assert tuple(frame.file for frame in cameras.frames) == photos.names
    assert tuple(frame.size for frame in cameras.frames) == photos.original_sizes
    assert len(read_cloud(out / "points.ply")[0]) == 500
    with SceneArchive(out / "scene.npz", photos.names) as archive:
        for (_, view), truth in zip(archive, dense, strict=True):
            assert torch.equal(view.points, truth.points)


def test_the_order_of_views_changes_no_file(tmp_path: Path) -> None:
    write(tmp_path / "a" / "out", [0, 1, 2])
    write(tmp_path / "b" / "out", [2, 1, 0])
    for name in ("cameras.json", "points.ply", "preview.png"):
        first, second = (tmp_path / side / "out" / name for side in "ab")
        assert first.read_bytes() == second.read_bytes(), name


def test_half_is_half(tmp_path: Path) -> None:
    write(tmp_path / "whole", [0, 1, 2])
    write(tmp_path / "half", [0, 1, 2], SceneOptions(half=True))
    whole, half = ((tmp_path / n / "scene.npz").stat().st_size for n in ("whole", "half"))
    assert half < 0.65 * whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_points": 0}, "--max-points must be at least 1, got 0"),
        ({"confidence_percentile": 101}, "--confidence-percentile must be at least 0"),
        ({"points_seed": -1}, "--points-seed must be"),
    ],
)
def test_wrong_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SceneOptions(**options)  # type: ignore[arg-type]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    photos, cameras, dense = drawn_scene(3, ((28, 42), (42, 28)))
    with SceneWriter(tmp_path, photos) as writer:
        writer.add(dense[1])
        with pytest.raises(UsageError, match="be one of 3 and come once, got 1"):
            writer.add(dense[1])
        with pytest.raises(UsageError, match="cameras must be given"):
            writer.finish()
        with pytest.raises(UsageError, match="camera sizes must be"):
            writer.cameras(cameras.resized(photos.original_sizes))
        writer.cameras(cameras)
        with pytest.raises(UsageError, match="views must all come before the end, got 2 missing"):
            writer.finish()


def test_a_failed_run_closes_its_files(tmp_path: Path) -> None:
    photos, _, dense = drawn_scene(2, ((28, 42), (42, 28)))
    with pytest.raises(KeyboardInterrupt), SceneWriter(tmp_path, photos) as writer:
        writer.add(dense[0])
        raise KeyboardInterrupt
    assert zipfile.ZipFile(tmp_path / "scene.npz").testzip() is None
