"""A scene's folder opened again, and what is said of folders that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.io.drawn_scene import drawn_scene
from tests.io.scenes import write_photos, write_scene
from vggt3.checks import DataError
from vggt3.io import SceneArchiveWriter
from vggt3.io.scene_folder import open_scene


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    cameras, dense = write_scene(tmp_path / "s", 3)
    photos = drawn_scene(3)[0]
    with open_scene(tmp_path / "s") as scene:
        assert scene.names == photos.names and scene.unposed == 0
        assert torch.allclose(scene.cameras.intrinsics.float(), cameras.intrinsics)
        for (view, image), truth, photo in zip(scene.views(), dense, photos.photos, strict=True):
            assert torch.equal(view.points, truth.points)
            assert torch.equal(image, photo.image)
        cloud = scene.cloud(10**9, 0.0)
    assert cloud.origin is not None
    view, pixel = cloud.origin.unbind(-1)
    for n in range(3):
        mine = view == n
        assert torch.equal(cloud.xyz[mine], dense[n].points.reshape(-1, 3)[pixel[mine]])


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    listing = folder / "cameras.json"
    content = json.loads(listing.read_text())
    change(content)
    listing.write_text(json.dumps(content))


def without_pose(content: dict[str, Any], which: int) -> None:
    del content["frames"][which]["fx"]


def test_views_without_a_pose_are_left_out(tmp_path: Path) -> None:
    dense = write_scene(tmp_path / "s", 3)[1]
    edit(tmp_path / "s", lambda content: without_pose(content, 1))
    with open_scene(tmp_path / "s") as scene:
        assert (scene.names, scene.unposed) == (("view_0.png", "view_2.png"), 1)
        indices = [view.index for view, _ in scene.views()]
        second = list(scene.views())[1][0]
    assert indices == [0, 1]
    assert torch.equal(second.points, dense[2].points)


def colmap(place: Path) -> None:
    (place / "sparse/0").mkdir(parents=True)
    for name in ("cameras.bin", "images.bin"):
        (place / "sparse/0" / name).touch()


def capture(place: Path) -> None:
    place.mkdir()
    (place / "cameras.json").write_text('{"pose_kind": "ground_truth", "frames": []}')


def nested(place: Path) -> None:
    write_scene(place / "inner", 2)


def half(place: Path, missing: str) -> None:
    write_scene(place, 2)
    (place / missing).unlink()


def written(place: Path, name: str) -> None:
    place.mkdir()
    (place / name).touch()


LOOKS = [
    (lambda p: p.mkdir(), "an empty folder"),
    (lambda p: p.touch(), r"a file \(s\)"),
    (write_photos, r"a folder of photos \(vggt3 reconstruct"),
    (lambda p: write_photos(p / "images"), "a folder of photos in 'images'"),
    (colmap, r"a COLMAP model \(sparse/0/cameras.bin\)"),
    (capture, r"a capture \(cameras.json with poses of kind 'ground_truth'"),
    (nested, "a folder with a scene in it .*inner'"),
    (lambda p: half(p, "cameras.json"), "a scene without its cameras.json"),
    (lambda p: half(p, "scene.npz"), "a scene without its scene.npz"),
    (lambda p: written(p, "transforms.json"), "a nerfstudio data set"),
    (lambda p: written(p, "notes.txt"), "a folder of another kind, with 'notes.txt'"),
]


@pytest.mark.parametrize(("make", "looks"), LOOKS)
def test_another_layout_is_named(tmp_path: Path, make: Any, looks: str) -> None:
    make(tmp_path / "s")
    with pytest.raises(DataError, match=f"be a folder that vggt3 reconstruct wrote .*got {looks}"):
        open_scene(tmp_path / "s")


def test_a_name_that_is_nearly_right(tmp_path: Path) -> None:
    write_scene(tmp_path / "garden", 2)
    with pytest.raises(DataError, match=r"SCENE must name an existing .*did you mean .*garden'"):
        open_scene(tmp_path / "gardn")


def rename(content: dict[str, Any], name: str) -> None:
    content["frames"][1]["file"] = name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: rename(c, "../x.png"), "name photos by relative paths.*got '../x.png'"),
        (lambda c: rename(c, "/x.png"), "name photos by relative paths"),
        (lambda c: rename(c, "a/../../b.png"), "name photos by relative paths"),
        (lambda c: rename(c, "a//b.png"), "name photos by relative paths"),
        (lambda c: rename(c, ""), "name photos by relative paths"),
        (lambda c: rename(c, "view_0.png"), "give every photo its own name, got 'view_0.png' 2×"),
        (lambda c: rename(c, "other.png"), "be a scene.npz, got none of 'depth/other.png'"),
        (lambda c: [without_pose(c, n) for n in range(2)], "at least one view with a pose, got 2"),
    ],
)
def test_a_listing_that_cannot_be_used(tmp_path: Path, change: Any, message: str) -> None:
    write_scene(tmp_path / "s", 2)
    edit(tmp_path / "s", change)
    with pytest.raises(DataError, match=message):
        open_scene(tmp_path / "s")


def test_maps_without_colours_or_points(tmp_path: Path) -> None:
    dense = write_scene(tmp_path / "s", 2)[1]
    photos = drawn_scene(2)[0]
    with SceneArchiveWriter(tmp_path / "s/scene.npz") as archive:
        for view, name in zip(dense, photos.names, strict=True):
            archive.add(name, view)
    with open_scene(tmp_path / "s") as scene, pytest.raises(DataError, match="hold the colours of"):
        scene.cloud(10, 25.0)
    with SceneArchiveWriter(tmp_path / "s/scene.npz") as archive:
        for view, photo in zip(dense, photos.photos, strict=True):
            view.points.fill_(np.nan)
            archive.add(photo.name, view, photo.image)
    with open_scene(tmp_path / "s") as scene, pytest.raises(DataError, match="have a finite point"):
        scene.cloud(10, 25.0)
