"""7-Scenes (Microsoft): RGB-D sequences of seven rooms.

``scene/seq-XX/frame-000000.{color.png,depth.proj.png,pose.txt}``. Depth: 16 bits, millimetres, 0
and 65535 invalid, beyond 10 m invalid. Pose: world-from-camera, metres. One camera for all.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    KnownCamera,
    pose_file,
    read_depth,
    read_text,
    subfolders,
)
from vggt3.data.readers.record import Scene, View

CAMERA = KnownCamera((525.0, 525.0), (320.0, 240.0), (480, 640))
"""The centre is the image's, so its origin is the top-left pixel's corner."""
UNKNOWN_MM, FARTHEST_M = 65535, 10.0
SPLITS = {
    "chess": ((1, 2, 4, 6), (3, 5)),
    "fire": ((1, 2), (3, 4)),
    "heads": ((2,), (1,)),
    "office": ((1, 3, 4, 5, 8, 10), (2, 6, 7, 9)),
    "pumpkin": ((2, 3, 6, 8), (1, 7)),
    "redkitchen": ((1, 2, 5, 7, 8, 11, 13), (3, 4, 6, 12, 14)),
    "stairs": ((2, 3, 5, 6), (1, 4)),
}
"""Sequences of train and test, where a scene's folder does not list them."""


def read(root: Path, split: str) -> list[Scene]:
    """A sequence is a scene of its own, ``chess/seq-03``."""
    places = [root] if any(root.glob("seq-*")) else subfolders(root)
    found = []
    for place in places:
        wanted = _numbers(place, split)
        for folder in sorted(place.glob("seq-*")):
            number = re.fullmatch(r"seq-(\d+)", folder.name)
            if folder.is_dir() and number and (wanted is None or int(number[1]) in wanted):
                found.append(_sequence(place.name, folder))
    return found


def _numbers(place: Path, split: str) -> set[int] | None:
    """Sequences of the split: by the scene's own list, else as published; None is all."""
    if split == "all":
        return None
    listing = place / ("TrainSplit.txt" if split == "train" else "TestSplit.txt")
    if listing.is_file():
        return {int(n) for n in re.findall(r"sequence\s*(\d+)", read_text(listing))}
    if place.name not in SPLITS:
        told = f"list the sequences of its {split} split (of an unknown scene)"
        checks.require(
            not any(place.glob("seq-*")), str(listing), told, "no file", error=checks.DataError
        )
        return set()
    return set(SPLITS[place.name][split == "test"])


def _sequence(scene: str, folder: Path) -> Scene:
    names = {entry.name for entry in folder.iterdir()}
    images = sorted(name for name in names if re.fullmatch(r"frame-\d+\.color\.png", name))
    views, raw = [], 0
    for image in images:
        stem = image.removesuffix(".color.png")
        depth = f"{stem}.depth.proj.png"
        if depth not in names and f"{stem}.depth.png" in names:
            depth, raw = f"{stem}.depth.png", raw + 1
        has_pose = f"{stem}.pose.txt" in names
        views.append(
            View(
                stem,
                folder / image,
                partial(_pose, folder / f"{stem}.pose.txt") if has_pose else None,
                partial(CAMERA.at, folder / image),
                partial(_depth, folder / depth) if depth in names else None,
            )
        )
    note = (
        f"7-Scenes {scene}/{folder.name}: {raw} of {len(images)} frames have depth.png only, "
        "which is not registered to the colour image; depth.proj.png is"
    )
    return Scene("sevenscenes", f"{scene}/{folder.name}", tuple(views), "m", (note,) * (raw > 0))


def _pose(path: Path) -> Tensor:
    return pose_file(path, inverted=True)


def _depth(path: Path) -> Tensor:
    return read_depth(path, 1000.0, UNKNOWN_MM, FARTHEST_M)


LAYOUT = Layout(
    "sevenscenes",
    "7-Scenes",
    "scene/seq-XX/frame-000000.color.png, .depth.proj.png, .pose.txt",
    ("*/seq-*/frame-*.color.png", "seq-*/frame-*.color.png"),
    read,
    ("test", "train", "all"),
)
