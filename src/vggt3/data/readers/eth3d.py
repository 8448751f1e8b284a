"""ETH3D high-resolution multi-view, undistorted, in metres.

``scene/images/custom_undistorted/NAME.JPG``; depth in
``scene/ground_truth_depth/custom_undistorted/NAME.JPG``, which is no picture but raw float32,
H×W; ``scene/custom_undistorted_cam/NAME.npz`` with ``intrinsics`` and ``extrinsics``
(camera-from-world).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import intrinsics, pose, read_array, size_of, subfolders
from vggt3.data.readers.record import Scene, View

KIND = "custom_undistorted"


def read(root: Path, split: str) -> list[Scene]:
    """A folder of the site is a scene."""
    places = [root] if (root / "images" / KIND).is_dir() else subfolders(root)
    return [_scene(place) for place in places if (place / "images" / KIND).is_dir()]


def _scene(folder: Path) -> Scene:
    views = []
    for image in sorted((folder / "images" / KIND).glob("*.[jJ][pP][gG]")):
        depth = folder / "ground_truth_depth" / KIND / image.name
        camera = folder / f"{KIND}_cam" / f"{image.stem}.npz"
        known = camera.is_file()
        views.append(
            View(
                image.stem,
                image,
                partial(_pose, camera) if known else None,
                partial(_intrinsics, camera) if known else None,
                partial(_depth, depth, image) if depth.is_file() else None,
            )
        )
    return Scene("eth3d", folder.name, tuple(views))


def _stored(path: Path, name: str) -> Tensor:
    return torch.from_numpy(read_array(path, name).astype(np.float64))


def _pose(path: Path) -> Tensor:
    found = _stored(path, "extrinsics")
    fits = found.ndim == 2 and found.shape[0] in (3, 4) and found.shape[1] == 4
    told = "hold extrinsics of 3×4 or 4×4"
    checks.require(fits, str(path), told, list(found.shape), error=checks.DataError)
    return pose(found, str(path))


def _intrinsics(path: Path) -> Tensor:
    # From COLMAP, whose pixels begin at the corner of the first one, as ours do.
    found = _stored(path, "intrinsics")
    fits, got = tuple(found.shape) == (3, 3), list(found.shape)
    checks.require(fits, str(path), "hold intrinsics of 3×3", got, error=checks.DataError)
    return intrinsics(found, str(path))


def _depth(path: Path, image: Path) -> Tensor:
    height, width = size_of(image)
    stored = np.fromfile(path, dtype="<f4")
    checks.require(
        stored.size == height * width,
        str(path),
        f"hold {height}×{width} raw float32 values, as its image has pixels",
        f"{path.stat().st_size} bytes",
        error=checks.DataError,
    )
    return torch.from_numpy(stored.astype(np.float32).reshape(height, width))


LAYOUT = Layout(
    "eth3d",
    "ETH3D (undistorted)",
    "scene/images/custom_undistorted/*.JPG, ground_truth_depth/…, custom_undistorted_cam/*.npz",
    (f"*/images/{KIND}/*", f"images/{KIND}/*"),
    read,
)
