"""ScanNet, unpacked: ``scene0000_00/{color/0.jpg,depth/0.png,pose/0.txt,intrinsic/…}``.

Depth: 16 bits, millimetres, 0 invalid. Pose: world-from-camera, metres; -inf where tracking was
lost, and such frames are left out. ``intrinsic/intrinsic_color.txt``: 4×4.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    by_number,
    matrix,
    pinhole_of,
    pose_file,
    read_depth,
    read_text,
    subfolders,
)
from vggt3.data.readers.record import Scene, View

OFFSET = 0.5
"""Its intrinsics have the first pixel's centre at (0, 0)."""


def read(root: Path, split: str) -> list[Scene]:
    """A scan is a scene."""
    places = [root] if (root / "intrinsic").is_dir() else subfolders(root)
    return [_scene(place) for place in places if (place / "intrinsic").is_dir()]


def _scene(folder: Path) -> Scene:
    views, lost = [], 0
    camera = folder / "intrinsic" / "intrinsic_color.txt"
    for image in by_number(list((folder / "color").glob("*.jpg"))):
        pose = folder / "pose" / f"{image.stem}.txt"
        depth = folder / "depth" / f"{image.stem}.png"
        if pose.is_file() and "inf" in read_text(pose):
            lost += 1
            continue
        views.append(
            View(
                image.stem,
                image,
                partial(pose_file, pose, inverted=True) if pose.is_file() else None,
                partial(_intrinsics, camera),
                partial(read_depth, depth, 1000.0) if depth.is_file() else None,
            )
        )
    note = f"ScanNet {folder.name}: {lost} frames without a pose are left out"
    return Scene("scannet", folder.name, tuple(views), "m", (note,) * (lost > 0))


def _intrinsics(path: Path) -> Tensor:
    return pinhole_of(matrix(path, 4, 4), str(path), OFFSET)


LAYOUT = Layout(
    "scannet",
    "ScanNet",
    "scene/color/0.jpg, scene/depth/0.png, scene/pose/0.txt, scene/intrinsic/intrinsic_color.txt",
    ("*/intrinsic/intrinsic_color.txt", "intrinsic/intrinsic_color.txt"),
    read,
)
