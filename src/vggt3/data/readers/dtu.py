"""DTU MVS, as MVSNet prepared it: objects on a table, in millimetres.

``scanN/{images/00000000.jpg,depths/00000000.npy,binary_masks/00000000.png,cams/00000000_cam.txt}``.
Cameras: camera-from-world and intrinsics. Depth counts inside the mask, eroded by 10 × 10.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    by_number,
    matrix,
    numbers,
    pinhole_of,
    pose,
    read_array,
    read_mask,
    read_text,
    subfolders,
)
from vggt3.data.readers.record import Scene, View

EROSION = 10
"""Side of the square that must lie in the mask around a pixel, from 5 before to 4 behind it."""
OFFSET = 0.5
"""MVSNet's intrinsics have the first pixel's centre at (0, 0)."""


def read(root: Path, split: str) -> list[Scene]:
    """A scan is a scene."""
    places = [root] if (root / "cams").is_dir() else subfolders(root)
    return [_scene(place) for place in _numbered(places) if (place / "cams").is_dir()]


def _numbered(places: list[Path]) -> list[Path]:
    return sorted(places, key=lambda p: (int((re.findall(r"\d+", p.name) or ["0"])[0]), p.name))


def _scene(folder: Path) -> Scene:
    views = []
    images = [p for p in (folder / "images").glob("*") if p.suffix in (".jpg", ".png")]
    for image in by_number(images):
        camera = folder / "cams" / f"{image.stem}_cam.txt"
        depth = folder / "depths" / f"{image.stem}.npy"
        mask = folder / "binary_masks" / f"{image.stem}.png"
        views.append(
            View(
                image.stem,
                image,
                partial(_pose, camera) if camera.is_file() else None,
                partial(_intrinsics, camera) if camera.is_file() else None,
                partial(_depth, depth) if depth.is_file() else None,
                partial(_mask, mask) if mask.is_file() else None,
            )
        )
    return Scene("dtu", folder.name, tuple(views), "mm")


def _part(path: Path, head: str, count: int) -> list[float]:
    """The numbers behind a line such as ``extrinsic``."""
    words = read_text(path).split()
    at = words.index(head) if head in words else -1
    checks.require(at >= 0, str(path), f"have a line '{head}'", "none", error=checks.DataError)
    return numbers(path, " ".join(words[at + 1 : at + 1 + count]))


def _pose(path: Path) -> Tensor:
    return pose(matrix(path, 4, 4, _part(path, "extrinsic", 16)), str(path))


def _intrinsics(path: Path) -> Tensor:
    return pinhole_of(matrix(path, 3, 3, _part(path, "intrinsic", 9)), str(path), OFFSET)


def _depth(path: Path) -> Tensor:
    stored = read_array(path)
    flat, got = stored.ndim == 2, list(stored.shape)
    checks.require(flat, str(path), "hold an array [H, W]", got, error=checks.DataError)
    return torch.from_numpy(stored.astype(np.float32))


def _mask(path: Path) -> Tensor:
    return eroded(read_mask(path))


def eroded(
    mask: Tensor,  # [H, W] bool
) -> Tensor:
    """[H, W] bool: the whole 10 × 10 around a pixel lies in the mask; outside is no edge."""
    before, after = EROSION // 2, EROSION - EROSION // 2 - 1
    outside = torch.nn.functional.pad((~mask).float()[None, None], (before, after) * 2)
    return torch.nn.functional.max_pool2d(outside, EROSION, stride=1)[0, 0] == 0


LAYOUT = Layout(
    "dtu",
    "DTU (MVSNet)",
    "scanN/images/00000000.jpg, depths/00000000.npy, binary_masks/…, cams/00000000_cam.txt",
    ("*/cams/*_cam.txt", "cams/*_cam.txt"),
    read,
)
