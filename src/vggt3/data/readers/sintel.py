"""MPI Sintel: rendered films with depth and cameras.

``training/{final,depth,camdata_left}/SEQ/frame_0001.{png,dpt,cam}``. dpt: float32 tag 202021.25,
int32 width and height, float32 depth row by row. cam: the same tag, nine float64 of the
intrinsics, twelve of camera-from-world. All little-endian.
"""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import by_number, matrix, pinhole_of, pose, subfolders
from vggt3.data.readers.record import Scene, View

TAG = 202021.25
OFFSET = 0.5
"""Sintel's principal points, 511.5 of 1024 across, count from the first pixel's centre."""


def read(root: Path, split: str) -> list[Scene]:
    """A sequence is a scene."""
    root = root if (root / "final").is_dir() else root / "training"
    return [_scene(root, folder) for folder in subfolders(root / "final")]


def _scene(root: Path, folder: Path) -> Scene:
    views = []
    for image in by_number(list(folder.glob("frame_*.png"))):
        depth = root / "depth" / folder.name / f"{image.stem}.dpt"
        camera = root / "camdata_left" / folder.name / f"{image.stem}.cam"
        known = camera.is_file()
        views.append(
            View(
                image.stem,
                image,
                partial(_pose, camera) if known else None,
                partial(_intrinsics, camera) if known else None,
                partial(_depth, depth) if depth.is_file() else None,
            )
        )
    return Scene("sintel", folder.name, tuple(views), "")


def _content(path: Path, kind: str) -> bytes:
    """A file behind its tag."""
    stored = path.read_bytes()
    tag = struct.unpack("<f", stored[:4])[0] if len(stored) >= 4 else None
    wanted = f"be a {kind} file of Sintel (tag {TAG})"
    checks.require(tag == TAG, str(path), wanted, f"tag {tag}", error=checks.DataError)
    return stored[4:]


def _depth(path: Path) -> Tensor:
    content = _content(path, ".dpt")
    width, height = struct.unpack("<ii", content[:8]) if len(content) >= 8 else (0, 0)
    checks.require(
        width > 0 and height > 0 and len(content) == 8 + 4 * width * height,
        str(path),
        f"hold {height}×{width} float32 values",
        f"{len(content)} bytes",
        error=checks.DataError,
    )
    values = np.frombuffer(content, "<f4", offset=8).astype(np.float32)
    return torch.from_numpy(values.reshape(height, width))


def _camera(path: Path) -> list[float]:
    content = _content(path, ".cam")
    fits, got = len(content) == 21 * 8, f"{len(content)} bytes"
    checks.require(fits, str(path), "hold 21 float64 values", got, error=checks.DataError)
    return np.frombuffer(content, "<f8").tolist()


def _intrinsics(path: Path) -> Tensor:
    return pinhole_of(matrix(path, 3, 3, _camera(path)[:9]), str(path), OFFSET)


def _pose(path: Path) -> Tensor:
    return pose(matrix(path, 3, 4, _camera(path)[9:]), str(path))


LAYOUT = Layout(
    "sintel",
    "MPI Sintel",
    "training/final/SEQ/frame_0001.png, training/depth/SEQ/frame_0001.dpt, camdata_left/….cam",
    ("training/final/*/frame_*.png", "final/*/frame_*.png"),
    read,
)
