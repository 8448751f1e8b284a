"""TUM RGB-D: ``SEQ/{rgb.txt,depth.txt,groundtruth.txt}``, times and files, times and poses.

A pose is tx ty tz qx qy qz qw, world-from-camera, metres. Each image takes the depth and the pose
nearest in time, at most 20 ms away; one that finds none in a list that is there is left out, as
the data set's own association does. Depth: 16 bits, 5000 steps a metre, 0 invalid.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    KnownCamera,
    numbers,
    pose,
    read_depth,
    read_text,
    subfolders,
)
from vggt3.data.readers.record import Scene, View
from vggt3.geometry.rotation import quaternion_to_matrix

STEPS = 5000.0
APART_S = 0.02
CAMERA = KnownCamera((525.0, 525.0), (319.5, 239.5), (480, 640), offset=0.5)
"""What the data set gives for all of its cameras; counted from the first pixel's centre."""


def read(root: Path, split: str) -> list[Scene]:
    """A sequence is a scene."""
    places = [root] if (root / "rgb.txt").is_file() else subfolders(root)
    return [_scene(place) for place in places if (place / "rgb.txt").is_file()]


def _scene(folder: Path) -> Scene:
    depths, poses = _timed(folder / "depth.txt", 1), _timed(folder / "groundtruth.txt", 7)
    views, lost = [], {"depth": 0, "pose": 0}
    for when, (file,) in _timed(folder / "rgb.txt", 1):
        depth, motion = _nearest(depths, when), _nearest(poses, when)
        alone = [("depth", depths and depth is None), ("pose", poses and motion is None)]
        lacking = [what for what, lacks in alone if lacks]
        for what in lacking:
            lost[what] += 1
        if lacking:
            continue
        image = folder / file
        views.append(
            View(
                image.stem,
                image,
                None if motion is None else partial(_pose, folder, motion),
                partial(CAMERA.at, image),
                None if depth is None else partial(read_depth, folder / depth[0], STEPS),
            )
        )
    notes = [
        f"TUM {folder.name}: {count} images have no {what} within {1000 * APART_S:.0f} ms and are "
        "left out"
        for what, count in lost.items()
        if count
    ]
    return Scene("tum", folder.name, tuple(views), notes=tuple(notes))


def _timed(listing: Path, words: int) -> list[tuple[float, tuple[str, ...]]]:
    """(seconds, what stands behind) of each line, by time; nothing where there is no file."""
    if not listing.is_file():
        return []
    found = []
    for n, line in enumerate(read_text(listing).splitlines(), 1):
        parts = line.split()
        if not parts or line.lstrip().startswith("#"):
            continue
        fits, told = len(parts) == words + 1, f"hold a time and {words} more"
        what = f"line {n} of {listing}"
        checks.require(fits, what, told, f"'{line}'", error=checks.DataError)
        (when,) = numbers(listing, parts[0])
        found.append((when, tuple(parts[1:])))
    return sorted(found)


def _nearest(timed: list[tuple[float, tuple[str, ...]]], when: float) -> tuple[str, ...] | None:
    place = bisect_left(timed, (when,))
    near = timed[max(0, place - 1) : place + 1]
    best = min(near, key=lambda entry: abs(entry[0] - when), default=None)
    return best[1] if best is not None and abs(best[0] - when) <= APART_S else None


def _pose(folder: Path, words: tuple[str, ...]) -> Tensor:
    listing = folder / "groundtruth.txt"
    values = torch.tensor(numbers(listing, " ".join(words)), dtype=torch.float64)
    length = float(values[3:].norm())
    told = "hold a quaternion of length 1"
    name, got = f"pose in {listing}", f"{' '.join(words[-4:])}, of length {length:g}"
    checks.require(abs(length - 1) < 0.05, name, told, got, error=checks.DataError)
    transform = torch.cat([quaternion_to_matrix(values[3:]), values[:3, None]], dim=1)
    return pose(transform, str(listing), inverted=True)


LAYOUT = Layout(
    "tum",
    "TUM RGB-D",
    "SEQ/rgb.txt, SEQ/depth.txt, SEQ/groundtruth.txt",
    ("*/rgb.txt", "rgb.txt"),
    read,
)
