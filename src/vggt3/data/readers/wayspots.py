"""Wayspots (Niantic): places outdoors that a phone mapped and came back to.

``wayspots_SCENE/{train,test}/{rgb/frame_00000.jpg,calibration/calibration_00000.txt,
poses/pose_00000.txt}``. Calibration is the focal length in pixels; poses are world-from-camera,
metres. Photos lie on their side: images are turned 90° clockwise, and cameras with them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    by_number,
    numbers,
    pinhole_matrix,
    pose_file,
    size_of,
    subfolders,
)
from vggt3.data.readers.record import Scene, View

SCENES = (
    *("bears", "cubes", "inscription", "lawn", "map"),
    *("squarebench", "statue", "tendrils", "therock", "wintersign"),
)
TURNED = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
"""Turned camera from the stored one: what pointed down points left, what pointed right, down."""


def read(root: Path, split: str) -> list[Scene]:
    """A scene for each place, of its split's frames."""
    places = [root] if (root / "train" / "rgb").is_dir() else subfolders(root)
    found = []
    for place in places:
        parts = [place / part for part in ("train", "test") if split in (part, "all")]
        views = [view for part in parts if (part / "rgb").is_dir() for view in _views(part, split)]
        if views:
            found.append(Scene("wayspots", place.name.removeprefix("wayspots_"), tuple(views)))
    return found


def _views(folder: Path, split: str) -> list[View]:
    views = []
    for image in by_number(list((folder / "rgb").glob("frame_*.jpg"))):
        number = image.stem.removeprefix("frame_")
        focal = folder / "calibration" / f"calibration_{number}.txt"
        pose = folder / "poses" / f"pose_{number}.txt"
        views.append(
            View(
                f"{folder.name}/{image.stem}" if split == "all" else image.stem,
                image,
                partial(_pose, pose) if pose.is_file() else None,
                partial(_intrinsics, focal, image) if focal.is_file() else None,
                turns=1,
            )
        )
    return views


def _pose(path: Path) -> Tensor:
    return TURNED @ pose_file(path, inverted=True)


def _intrinsics(path: Path, image: Path) -> Tensor:
    found = numbers(path)
    told, got = "hold one focal length in pixels", f"{len(found)} numbers"
    checks.require(len(found) == 1, str(path), told, got, error=checks.DataError)
    height, width = size_of(image)  # as stored: the turned image is height across
    return pinhole_matrix((found[0], found[0]), (height / 2, width / 2), str(path))


LAYOUT = Layout(
    "wayspots",
    "Wayspots",
    "wayspots_SCENE/{train,test}/{rgb/frame_00000.jpg,calibration/…,poses/pose_00000.txt}",
    ("*/train/rgb/frame_*.jpg", "train/rgb/frame_*.jpg", "*/test/rgb/frame_*.jpg"),
    read,
    ("all", "train", "test"),
)
