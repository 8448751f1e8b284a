"""One scene, written in every layout, is the same scene when it is read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.layouts import NRGBD, SIZE, WRITERS, Drawn, drawn
from tests.data.literal import COLOUR_4X3, write
from vggt3.checks import DataError
from vggt3.data.readers.layout import LAYOUTS, layout, read_scenes, recognised

FILM = {"bonn", "kitti"}
"""Without cameras."""
NO_DEPTH = {"wayspots", "colmap"}
ABOUT = {"kitti": 0.5 / 256, "co3d": 0.01}
"""How exactly depth is stored, where not to the millimetre."""


@pytest.fixture(scope="module")
def seven() -> Drawn:
    return drawn()


def test_every_layout_is_tried() -> None:
    assert WRITERS.keys() == LAYOUTS.keys()
    assert all(layout(name).name == name for name in LAYOUTS)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_the_same_scene(name: str, seven: Drawn, tmp_path: Path) -> None:
    scene = drawn(NRGBD) if name == "nrgbd" else seven
    WRITERS[name](tmp_path, scene)
    seen = recognised(tmp_path)
    assert seen is not None and seen.name == name
    (found,) = read_scenes(None, tmp_path, "all" if "all" in seen.splits else None)
    found = pickle.loads(pickle.dumps(found))  # as a worker gets it
    assert found.dataset == name and len(found.views) == len(scene.images)
    places = list(range(len(found.views)))
    if name == "wayspots":  # train comes first
        places = [0, 2, 1, 3]
    if name not in FILM:
        cameras = found.cameras()
        unit = 1000.0 if found.unit == "mm" else 1.0
        expected = scene.pose[places].clone()
        expected[..., 3] *= unit
        tolerance = 1e-6 if name == "captures" else 1e-9
        torch.testing.assert_close(
            cameras.camera_from_world, expected, atol=tolerance * unit, rtol=tolerance
        )
        wanted = scene.k.expand(len(places), 3, 3)
        torch.testing.assert_close(cameras.intrinsics, wanted, atol=1e-5, rtol=0)
        assert cameras.sizes == (SIZE,) * len(places)
    for view, place in zip(found.views, places, strict=True):
        off = (view.image().float() - scene.images[place].float()).abs().mean()
        assert float(off) < (0.01 if view.file.suffix == ".png" else 6)
        if name in NO_DEPTH:
            assert view.depth is None
            continue
        depth = view.depth_map().double() / (1000 if found.unit == "mm" else 1)
        torch.testing.assert_close(depth, scene.depth[place], atol=ABOUT.get(name, 1e-6), rtol=1e-6)
        assert (depth[scene.depth[place] == 0] == 0).all()


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_each_layout_is_told_from_the_others(name: str, seven: Drawn, tmp_path: Path) -> None:
    """A folder of one layout, given as another: the error says which it looks like."""
    WRITERS[name](tmp_path, seven)
    other = "scannet" if name != "scannet" else "dtu"
    title = layout(name).title
    with pytest.raises(DataError) as said:
        read_scenes(other, tmp_path)
    assert f"got a folder that looks like {title} ({name})" in str(said.value)
    assert f"must hold {layout(other).title} (" in str(said.value)


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"sevenscenes", "wayspots", "sintel"}))
def test_one_scenes_folder_will_do(name: str, seven: Drawn, tmp_path: Path) -> None:
    WRITERS[name](tmp_path, seven)
    if name in ("colmap", "kitti"):
        return  # they are one scene's folder already
    (inner,) = (entry for entry in tmp_path.iterdir() if entry.is_dir())
    (scene,) = read_scenes(name, inner)
    assert len(scene.views) == 4


@pytest.mark.parametrize("name", ["captures", "tum", "scannet", "bonn", "sevenscenes"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "I;16"])
def test_a_picture_of_depth_is_no_depth(name: str, mode: str, tmp_path: Path) -> None:
    """Eight bits have no millimetres: read as depth they would score as if all were near."""
    WRITERS[name](tmp_path, drawn())
    (scene,) = read_scenes(name, tmp_path)
    for file in tmp_path.rglob("*.png"):
        with Image.open(file) as picture:
            size, deep = picture.size, picture.mode.startswith("I")
        if deep:
            Image.new(mode, size, 7).save(file)
    if mode == "I;16":
        assert float(scene.views[0].depth_map().max()) > 0
        return
    said = r"\.png must be a depth map of one channel with 16 bits, (5000|1000) steps a unit, got"
    with pytest.raises(DataError, match=said):
        scene.views[0].depth_map()


def test_captures_without_a_camera_are_said(tmp_path: Path) -> None:
    """A folder that has no pose is no scene; the others say so, or the error does."""
    bare = b'{"frames": [{"file": "a.png", "width": 4, "height": 3}]}'
    write(tmp_path / "blind/cameras.json", bare)
    write(tmp_path / "blind/a.png", COLOUR_4X3)
    told = "capture blind: 1 photos without a camera are left out"
    with pytest.raises(DataError, match=f"got none; {told}"):
        read_scenes("captures", tmp_path)
    WRITERS["captures"](tmp_path, drawn())
    (scene,) = read_scenes("captures", tmp_path)
    assert scene.name != "blind" and told in scene.notes
