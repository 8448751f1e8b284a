"""Whatever is missing from a data set, or damaged in it: errors that name the thing."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.data.layouts import WRITERS, Drawn, drawn
from vggt3.checks import DataError
from vggt3.data.readers.layout import LAYOUTS, layout, read_scenes
from vggt3.data.readers.record import View


@pytest.fixture(scope="module")
def pair() -> Drawn:
    return drawn(views=2)


def looked_at(name: str, root: Path) -> None:
    """Read all that there is; nothing but errors that name something, no camera that is none."""
    try:
        splits = layout(name).splits
        scenes = read_scenes(name, root, "all" if "all" in splits else None)
    except DataError:
        return
    for view in (view for scene in scenes for view in scene.views):
        for read in (lambda view=view: view.size, view.image, view.pose):
            quietly(read)
        quietly(view.depth and view.depth_map)
        k = quietly(view.intrinsics)
        if k is not None:
            assert k.isfinite().all() and k[0, 0] > 0 and k[1, 1] > 0


def quietly(read: Callable[[], Any] | None) -> Any:
    if read is None:
        return None
    try:
        return read()
    except DataError as error:
        assert re.search(r" must .*, got .", str(error)), error
        return None


def damages(path: Path) -> Iterator[Callable[[], object]]:
    """Ways in which a file or a folder can be another than it should."""
    if path.is_dir():
        yield lambda: shutil.rmtree(path)
        yield lambda: (shutil.rmtree(path), path.mkdir())
        yield lambda: (shutil.rmtree(path), path.write_bytes(b"x"))
        return
    whole = path.read_bytes()
    yield path.unlink
    yield lambda: (path.unlink(), path.mkdir())
    for content in (b"", b"7", bytes(range(256)) * 9, whole[: len(whole) // 2]):
        yield lambda content=content: path.write_bytes(content)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_part_that_is_gone_or_damaged_is_said(name: str, pair: Drawn, tmp_path: Path) -> None:
    if name == "colmap":
        pytest.importorskip("pycolmap")
    whole, some = tmp_path / "whole", tmp_path / "some"
    WRITERS[name](whole, pair)
    for part in sorted(p.relative_to(whole) for p in whole.rglob("*")):
        for n in range(len(list(damages(whole / part)))):
            shutil.copytree(whole, some)
            list(damages(some / part))[n]()
            looked_at(name, some)
            shutil.rmtree(some)


@pytest.mark.parametrize("name", ["dtu", "eth3d", "sintel", "scannet", "wayspots", "tum", "colmap"])
@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "1e999", "x", "\xff", ""])
def test_a_number_that_is_none_is_said(name: str, word: str, pair: Drawn, tmp_path: Path) -> None:
    if name == "colmap":
        pytest.importorskip("pycolmap")
    WRITERS[name](tmp_path, pair)
    for file in sorted(tmp_path.rglob("*.txt")):
        whole = file.read_bytes()
        for found in list(re.finditer(rb"\S+", whole))[:30]:
            written = whole[: found.start()] + word.encode("latin1") + whole[found.end() :]
            file.write_bytes(written)
            looked_at(name, tmp_path)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "kind", "bits"),
    [("eth3d", "*.npz", 255), ("eth3d", "*.npz", 1), ("dtu", "*.npy", 1), ("co3d", "*.jgz", 8)],
)
def test_a_flipped_byte_is_said(
    name: str, kind: str, bits: int, pair: Drawn, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path, pair)
    file = min(tmp_path.rglob(kind))
    whole = file.read_bytes()
    (scene,) = read_scenes(name, tmp_path)
    view = scene.views[0]
    some = [*range(min(300, len(whole))), *range(300, len(whole), 1 + len(whole) // 300)]
    for n in some:
        file.write_bytes(whole[:n] + bytes([whole[n] ^ bits]) + whole[n + 1 :])
        if name == "co3d":
            looked_at(name, tmp_path)
        for read in (view.pose, view.intrinsics, view.depth_map):
            quietly(read)


LISTINGS = {
    "nerfstudio": "room/transforms.json",
    "co3d": "apple/frame_annotations.jgz",
}
WRONG = [0, -1, math.nan, math.inf, "x", None, [], {}, True, [1], 10**400]


def places(content: Any, *above: str | int) -> Iterator[tuple[str | int, ...]]:
    """The way to everything in JSON, of lists only to the first entry."""
    yield above
    if isinstance(content, dict):
        for key, value in content.items():
            yield from places(value, *above, key)
    if isinstance(content, list) and content:
        yield from places(content[0], *above, 0)


@pytest.mark.parametrize("name", sorted(LISTINGS))
def test_a_listing_of_other_things_is_said(name: str, pair: Drawn, tmp_path: Path) -> None:
    WRITERS[name](tmp_path, pair)
    listing = tmp_path / LISTINGS[name]
    packed = listing.suffix == ".jgz"
    text = gzip.decompress(listing.read_bytes()) if packed else listing.read_bytes()
    for place in places(json.loads(text)):
        for wrong in WRONG:
            content: Any = {"": json.loads(text)}
            *way, last = ("", *place)
            inner = content
            for key in way:
                inner = inner[key]
            inner[last] = wrong
            written = json.dumps(content[""]).encode()
            listing.write_bytes(gzip.compress(written, 1) if packed else written)
            looked_at(name, tmp_path)


def test_kitti_without_its_images(pair: Drawn, tmp_path: Path) -> None:
    WRITERS["kitti"](tmp_path, pair)
    shutil.rmtree(tmp_path / "val_selection_cropped/image")
    with pytest.raises(DataError, match=r"must hold .*image/\*\.png.* got no folder image"):
        read_scenes("kitti", tmp_path)


@pytest.mark.parametrize("scale", [0, -0.001, math.nan, math.inf, "0.001", None, True])
def test_a_scale_that_is_none_is_said(scale: object, pair: Drawn, tmp_path: Path) -> None:
    WRITERS["nerfstudio"](tmp_path, pair)
    listing = tmp_path / "room/transforms.json"
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps({**content, "depth_unit_scale_factor": scale}))
    said = r"depth_unit_scale_factor of frame 0 of .*transforms\.json must be a number above 0, got"
    with pytest.raises(DataError, match=rf"{said} {scale!r}"):
        read_scenes("nerfstudio", tmp_path)
    for frame in content["frames"]:
        del frame["depth_file_path"]  # without depth nothing is to be scaled
    listing.write_text(json.dumps({**content, "depth_unit_scale_factor": scale}))
    assert len(read_scenes("nerfstudio", tmp_path)[0].views) == 2


@pytest.mark.parametrize("scale", [0, -2.0, math.nan, "2"])
def test_co3d_scales(scale: object, pair: Drawn, tmp_path: Path) -> None:
    view = co3d(pair, tmp_path, scale_adjustment=scale)
    said = r"scale_adjustment of frame 1 of 110_1_2 in .* must be a number above 0, got"
    with pytest.raises(DataError, match=rf"{said} {scale!r}"):
        view.depth_map()
    known = co3d(pair, tmp_path, scale_adjustment=4).depth_map()
    torch.testing.assert_close(co3d(pair, tmp_path, scale_adjustment=None).depth_map() * 4, known)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "I;16"])
def test_a_picture_of_co3d_depth_is_no_depth(mode: str, pair: Drawn, tmp_path: Path) -> None:
    view = co3d(pair, tmp_path)
    file = tmp_path / "apple/110_1_2/depths/frame000001.png"
    Image.new(mode, (64, 48), 0x3C00 if mode == "I;16" else 7).save(file)
    if mode == "I;16":
        assert (view.depth_map() == 2).all()  # 1 as float16, times the scale
        return
    said = r"\.png must be a depth map of one channel with 16 bits, float16, got"
    with pytest.raises(DataError, match=said):
        view.depth_map()


def co3d(scene: Drawn, root: Path, **depth: object) -> View:
    """The first view, with other facts about its depth."""
    WRITERS["co3d"](root, scene)
    listing = root / LISTINGS["co3d"]
    content = json.loads(gzip.decompress(listing.read_bytes()))
    content[0]["depth"] |= depth
    listing.write_bytes(gzip.compress(json.dumps(content).encode()))
    return read_scenes("co3d", root)[0].views[0]
