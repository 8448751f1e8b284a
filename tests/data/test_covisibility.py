"""What views see of each other: by hand, kept in a file, and chains of views that agree."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.data.layouts import (
    WRITERS,
    drawn,
    write_captures,
    write_nerfstudio,
    write_sevenscenes,
)
from vggt3.checks import DataError
from vggt3.data.procedural.draw import Draw
from vggt3.data.readers import covisibility as module
from vggt3.data.readers.covisibility import Links, covisibility, frames_of
from vggt3.data.readers.layout import read_scenes
from vggt3.data.readers.record import Scene


def wall(shift: float = 0.0, turned: bool = False) -> Tensor:
    """A camera 1 m in front of a wall, ``shift`` metres to the right; or facing away from it."""
    pose = torch.eye(3, 4).double()
    pose[0, 3] = -shift
    if turned:
        pose[:, :3] = torch.diag(torch.tensor([-1.0, 1, -1])).double()
    return pose


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Of the wall 64/52.5 = 1.219 m are seen at a time: the second camera sees half of the first's
    part, the third an eighth, the fourth looks the other way."""
    width = 64 / 52.5
    poses = [wall(), wall(width / 2), wall(width * 7 / 8), wall(turned=True)]
    base = drawn(views=4)
    write_captures(
        tmp_path, replace(base, depth=torch.ones_like(base.depth), pose=torch.stack(poses))
    )
    (found,) = read_scenes("captures", tmp_path)
    return found


def test_by_hand(scene: Scene) -> None:
    found = covisibility(scene)
    expected = torch.tensor(
        [[1, 0.5, 0.125, 0], [0.5, 1, 0.625, 0], [0.125, 0.625, 1, 0], [0, 0, 0, 1]]
    )
    torch.testing.assert_close(found, expected, atol=0.04, rtol=0)


def test_what_hides_another_is_not_seen(scene: Scene, tmp_path: Path) -> None:
    """The second camera has something 0.4 m in front of it: it does not see the wall."""
    first, second = scene.views[0], scene.views[0]
    near = replace(second, depth=lambda: torch.full((48, 64), 0.4))
    found = covisibility(replace(scene, views=(first, near)))
    assert found[0, 1] == 0


def test_far_from_the_origin_as_near_it(tmp_path: Path) -> None:
    """A georeferenced world: float32 has steps of half a metre there."""
    near = drawn()
    shift = torch.tensor([465000.0, 5428000.0, 200.0], dtype=torch.float64)
    pose = near.pose.clone()
    pose[..., 3] -= pose[..., :3] @ shift
    write_nerfstudio(tmp_path / "near", near)
    write_nerfstudio(tmp_path / "far", replace(near, pose=pose))
    found = [covisibility(*read_scenes("nerfstudio", tmp_path / name)) for name in ("near", "far")]
    others = ~torch.eye(4, dtype=torch.bool)
    assert found[0][others].mean() > 0.3
    torch.testing.assert_close(found[1], found[0], atol=0.01, rtol=0)


def test_it_is_computed_once(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = covisibility(scene, cache)
    monkeypatch.setattr(module, "_computed", lambda *_: pytest.fail("computed again"))
    again = covisibility(scene, cache)
    assert torch.equal(again, first) and again.dtype == torch.float32
    (read,) = read_scenes("captures", tmp_path)  # as another process has it
    assert torch.equal(covisibility(read, cache), first)


def test_a_damaged_file_is_replaced(scene: Scene, tmp_path: Path) -> None:
    """Every byte in turn, and every length."""
    two = replace(scene, views=scene.views[:2])
    cache = tmp_path / "cache"
    first = covisibility(two, cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    flipped = [
        whole[:n] + bytes([whole[n] ^ bits]) + whole[n + 1 :]
        for n in range(len(whole))
        for bits in (1, 255)
    ]
    for damaged in (*flipped, *(whole[:n] for n in range(len(whole))), whole + b"\0"):
        file.write_bytes(damaged)
        assert torch.equal(covisibility(two, cache), first)
        assert file.read_bytes() == whole
    assert list(cache.iterdir()) == [file]


def test_moved_cameras_are_looked_at_again(scene: Scene, tmp_path: Path) -> None:
    cache, listing = tmp_path / "cache", tmp_path / "room" / "cameras.json"
    covisibility(scene, cache)
    content = json.loads(listing.read_text())
    for n, frame in enumerate(content["frames"]):
        frame["camera_to_world"][0][3] += 1000 * n  # a kilometre apart; no other file changes
    listing.write_text(json.dumps(content))
    (moved,) = read_scenes("captures", tmp_path)
    assert torch.equal(covisibility(moved, cache), torch.eye(4))
    content["frames"][0]["fx"] *= 2
    listing.write_text(json.dumps(content))
    covisibility(*read_scenes("captures", tmp_path), cache)
    assert len(list(cache.iterdir())) == 3


DEEP = sorted(WRITERS.keys() - {"bonn", "kitti", "wayspots", "colmap"})
"""Layouts with cameras and depth."""
PIXELS = {".png", ".jpg", ".JPG", ".npy", ".dpt"}


@pytest.mark.parametrize("name", DEEP)
def test_other_images_depth_and_masks_are_looked_at_again(name: str, tmp_path: Path) -> None:
    base, cache = drawn(views=2), tmp_path / "cache"
    WRITERS[name](tmp_path / "data", base)
    (scene,) = read_scenes(name, tmp_path / "data")
    covisibility(scene, cache)
    files = [f for f in (tmp_path / "data").rglob("*") if f.suffix in PIXELS]
    assert len(files) == (6 if name == "dtu" else 4)
    for count, file in enumerate(files, 2):
        os.utime(file, ns=(1, 1))  # another one, perhaps
        covisibility(scene, cache)
        assert len(list(cache.iterdir())) == count, file


def test_another_scale_of_depth_is_looked_at_again(tmp_path: Path) -> None:
    """The same files, read otherwise."""
    cache, listing = tmp_path / "cache", tmp_path / "room" / "transforms.json"
    write_nerfstudio(tmp_path, drawn(views=2))
    first = covisibility(*read_scenes("nerfstudio", tmp_path), cache)
    content = {**json.loads(listing.read_text()), "depth_unit_scale_factor": 1e-4}
    listing.write_text(json.dumps(content))
    assert not torch.equal(covisibility(*read_scenes("nerfstudio", tmp_path), cache), first)


def test_a_depth_map_that_is_gone_is_said(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "room/depth/0001.png").unlink()
    with pytest.raises(DataError, match=r"0001\.png must be a readable image, got No such file"):
        covisibility(scene, tmp_path / "cache")


def test_a_view_without_depth_is_said(tmp_path: Path) -> None:
    write_sevenscenes(tmp_path, drawn(views=2))
    (tmp_path / "chess/seq-03/frame-000001.depth.proj.png").unlink()
    (scene,) = read_scenes("sevenscenes", tmp_path)
    with pytest.raises(DataError, match="got no depth"):
        covisibility(scene)


def test_long_scenes_are_thinned(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FRAMES", 3)
    assert frames_of(scene) == [0, 1, 3]
    assert covisibility(scene).shape == (3, 3)


def chain(*pairs: tuple[int, int], count: int) -> Tensor:
    found = torch.eye(count)
    for a, b in pairs:
        found[a, b] = found[b, a] = 0.4
    return found


def test_groups_and_samples() -> None:
    """0–1–2–3 are a chain, 4–5 a pair, 6 alone."""
    links = Links.of(chain((0, 1), (1, 2), (2, 3), (4, 5), count=7))
    assert links.groups == ((0, 1, 2, 3), (4, 5), (6,)) and links.largest == 4
    seen = set()
    for n in range(200):
        chosen = links.sample(3, Draw(1, n))
        assert len(set(chosen)) == 3 and set(chosen) < {0, 1, 2, 3}
        for place, view in enumerate(chosen[1:], 1):
            assert links.near[view, chosen[:place]].any()
        seen.add(tuple(chosen))
    # Every chain of three by neighbours: 012 021? no: 2 is not beside 0.
    assert (0, 2, 1) not in seen and {(0, 1, 2), (1, 0, 2), (2, 1, 3), (3, 2, 1)} <= seen
    pairs = {tuple(sorted(links.sample(2, Draw(2, n)))) for n in range(200)}
    assert pairs == {(0, 1), (1, 2), (2, 3), (4, 5)}
    assert links.sample(4, Draw(3, 0)) == links.sample(4, Draw(3, 0))
    assert Links.of(chain((0, 1), count=2), 0.4).largest == 1  # more than, not as much as
