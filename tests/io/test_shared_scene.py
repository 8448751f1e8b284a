"""A scene's files by several processes are, byte for byte, those of one with the same maps."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image

from tests.io.drawn_scene import drawn_scene
from tests.training.processes import together
from vggt3 import checks
from vggt3.distributed import World
from vggt3.io import SceneOptions, SceneWriter
from vggt3.io.export import npz_parts
from vggt3.io.export.npz_parts import join_archives
from vggt3.io.export.scene_npz import SceneArchiveWriter
from vggt3.io.photo_set import PhotoSet
from vggt3.io.photos import read_photos
from vggt3.io.shared_reading import read_photos_shared, read_video_shared
from vggt3.io.shared_staging import staged_together
from vggt3.io.staging import SCENE_FILES
from vggt3.types import Views

SIZES = ((28, 42), (42, 28), (28, 28))
OPTIONS = SceneOptions(max_points=900, half=True)


def held_by(photos: PhotoSet, world: World) -> PhotoSet:
    """What one process has of all photos."""
    held = range(*world.share(len(photos)))
    shown = [
        photo if n in held else replace(photo, image=photo.image.to("meta"))
        for n, photo in enumerate(photos.photos)
    ]
    return PhotoSet(tuple(shown), (), tuple(held))


def write(out: Path, world: World, views: int, overwrite: bool = False) -> None:
    photos, cameras, dense = drawn_scene(views, SIZES)
    given = photos if world.size == 1 else held_by(photos, world)
    with (
        staged_together(world, out, overwrite) as folder,
        SceneWriter(folder, given, OPTIONS, world) as writer,
    ):
        writer.cameras(cameras)
        for index in (i for group in given.views().groups for i in group.ids):
            writer.add(dense[index])
        summary = writer.finish()
    assert (summary.point_count, summary.unposed) == (900, 0)


def check_files(folder: Path) -> None:
    dist.init_process_group("gloo")
    world = World.current()
    one, many = folder / "one" / "scene", folder / "many" / "scene"
    if world.rank == 0:
        write(one, World(), 7)
    write(many, world, 7)
    for name in SCENE_FILES:
        assert (one / name).read_bytes() == (many / name).read_bytes(), name
    assert sorted(path.name for path in many.iterdir()) == sorted(SCENE_FILES)
    check_refusals(folder, world)
    dist.destroy_process_group()


def check_refusals(folder: Path, world: World) -> None:
    """An error of one is everyone's, and nothing is left behind."""
    taken = folder / "many" / "scene"
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(checks.UsageError, match="not exist yet"):
        write(taken, world, 7)
    with pytest.raises((OSError, RuntimeError)), staged_together(world, folder / "new" / "out"):
        if world.rank == 1:
            raise OSError(28, "No space left on device")
        raise RuntimeError("another is gone")
    world.exchange(None)
    assert sorted(path.name for path in folder.rglob("*")) == before
    world.exchange(None)  # all have looked
    write(taken, world, 2, overwrite=True)  # of two views, one process has none
    assert len(zipfile.ZipFile(taken / "scene.npz").namelist()) == 2 * 5


def test_files_of_three_processes(tmp_path: Path) -> None:
    together(3, check_files, tmp_path)


def check_reading(folder: Path) -> None:
    dist.init_process_group("gloo")
    world = World.current()
    whole = read_photos(folder, long_side=56)
    found = read_photos_shared(world, folder, long_side=56)
    assert (found.names, found.sizes, found.skipped) == (whole.names, whole.sizes, whole.skipped)
    assert found.original_sizes == whole.original_sizes
    assert found.held is not None
    everyone = [n for held in world.exchange(found.held) for n in held]
    assert everyone == list(range(len(whole)))
    for n in found.held:
        assert torch.equal(found.photos[n].image, whole.photos[n].image)
    views, expected = found.views(), whole.views()
    assert views.ids == tuple(i for i in expected.ids if i in found.held)
    assert views.total == len(whole)
    frames = read_video_shared(world, lambda: whole)
    assert frames.held == tuple(range(*world.share(len(whole)))) and frames.names == whole.names
    mine = folder / "0.png" if world.rank else folder
    with pytest.raises(checks.DataError, match=r"be the same files for every process, got \d on"):
        read_photos_shared(world, mine, long_side=56)
    with pytest.raises(checks.DataError, match=r"broken\.png"):
        read_photos_shared(world, folder, long_side=56, strict=True)
    dist.destroy_process_group()


def test_each_decodes_its_own_photos(tmp_path: Path) -> None:
    for n, size in enumerate([(80, 60), (60, 80), (80, 60), (80, 60)]):
        Image.new("RGB", size, (n * 40, 90, 10)).save(tmp_path / f"{n}.png")
    (tmp_path / "1 broken.png").write_text("no picture")
    together(3, check_reading, tmp_path)


@pytest.mark.parametrize("by_kernel", [True, False])
def test_parts_are_joined_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_kernel: bool
) -> None:
    if not by_kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    monkeypatch.setattr(npz_parts, "AT_ONCE", 1000)
    dense = drawn_scene(4, SIZES)[2]
    names = [f"a/b c{n}.jpg" for n in range(4)]
    for path, held in (("one", [2, 0, 3, 1]), ("a", [0, 1]), ("b", []), ("c", [2, 3])):
        with SceneArchiveWriter(tmp_path / path) as archive:
            for n in held:
                archive.add(names[n], dense[n], torch.full((3, *dense[n].depth.shape), 7).byte())
    order, parts = [names[n] for n in (2, 0, 3, 1)], [tmp_path / part for part in "abc"]
    join_archives(tmp_path / "many", parts, order)
    assert (tmp_path / "many").read_bytes() == (tmp_path / "one").read_bytes()
    assert zipfile.ZipFile(tmp_path / "many").testzip() is None
    join_archives(tmp_path / "turned", parts, names)  # the first part holds what comes first
    assert not parts[0].exists()
    with zipfile.ZipFile(tmp_path / "turned") as turned, zipfile.ZipFile(tmp_path / "one") as one:
        assert turned.testzip() is None
        for member in one.namelist():
            assert turned.read(member) == one.read(member)
    join_archives(tmp_path / "whole", [tmp_path / "turned", parts[1]], names)
    assert zipfile.ZipFile(tmp_path / "whole").testzip() is None


def refuse(*_: object) -> Iterator[None]:
    raise OSError(18, "Invalid cross-device link")


def test_a_share_of_views_may_be_empty() -> None:
    views = Views.from_share([], [], [(28, 42), (42, 28)])
    assert (views.ids, views.total, views.groups[0].size) == ((), 2, (28, 42))
