"""Bonn RGB-D Dynamic, the 110 frames that depth of videos is scored on.

``rgbd_bonn_SEQ/{rgb_110,depth_110}/*.png``, paired in the order of their names (times). Depth: 16
bits, 5000 steps a metre, 0 invalid.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import read_depth, subfolders
from vggt3.data.readers.record import Scene, View

STEPS = 5000.0


def read(root: Path, split: str) -> list[Scene]:
    """A sequence is a scene."""
    places = [root] if (root / "rgb_110").is_dir() else subfolders(root)
    return [_scene(place) for place in places if (place / "rgb_110").is_dir()]


def _scene(folder: Path) -> Scene:
    images = sorted((folder / "rgb_110").glob("*.png"))
    depths = sorted((folder / "depth_110").glob("*.png"))
    checks.require(
        len(images) == len(depths),
        str(folder),
        f"have a depth map for each of {len(images)} images",
        len(depths),
        error=checks.DataError,
    )
    views = tuple(
        View(image.stem, image, depth=partial(read_depth, depth, STEPS))
        for image, depth in zip(images, depths, strict=True)
    )
    return Scene("bonn", folder.name.removeprefix("rgbd_bonn_"), views)


LAYOUT = Layout(
    "bonn",
    "Bonn RGB-D Dynamic",
    "rgbd_bonn_SEQ/rgb_110/*.png, rgbd_bonn_SEQ/depth_110/*.png",
    ("*/rgb_110/*.png", "rgb_110/*.png"),
    read,
)
