"""nerfstudio: ``transforms.json`` beside its images.

World-from-camera in OpenGL axes; fl_x, fl_y, cx, cy, w, h for all frames or for each; depth, where
there is some, in 16-bit PNGs of millimetres. Images must be free of distortion.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    pinhole_matrix,
    pose,
    positive,
    read_depth,
    read_text,
    subfolders,
)
from vggt3.data.readers.record import Scene, View

LISTING = "transforms.json"
UNIT = "depth_unit_scale_factor"
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
CAMERAS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")


def read(root: Path, split: str) -> list[Scene]:
    """A folder with transforms.json is a scene."""
    places = [root] if (root / LISTING).is_file() else subfolders(root)
    return [_scene(place) for place in places if (place / LISTING).is_file()]


def _scene(folder: Path) -> Scene:
    listing = folder / LISTING
    text = read_text(listing)
    try:
        content = json.loads(text)
        frames = [{**content, **frame} for frame in content["frames"]]
    except (ValueError, KeyError, TypeError) as error:
        checks.fail(
            str(listing), "be JSON with frames", checks.reason(error), error=checks.DataError
        )
    views = [_view(folder, n, frame) for n, frame in enumerate(frames)]
    return Scene("nerfstudio", folder.name, tuple(views), "")


def _view(folder: Path, number: int, entry: Mapping[str, Any]) -> View:
    what = f"frame {number} of {folder / LISTING}"
    try:
        file = folder / str(entry["file_path"])
        transform = torch.tensor(entry["transform_matrix"], dtype=torch.float64)
        camera = _camera(entry)
        bent = [name for name in DISTORTION if float(entry.get(name, 0) or 0) != 0]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        told = "have file_path, transform_matrix and a camera"
        checks.fail(what, told, checks.reason(error), error=checks.DataError)
    model = str(entry.get("camera_model", "OPENCV"))
    plain = not bent and model in CAMERAS
    got = f"{model} with {', '.join(bent) or 'another projection'}"
    checks.require(plain, what, "be a pinhole camera (undistort it)", got, error=checks.DataError)
    shape = list(transform.shape)
    checks.require(shape == [4, 4], what, "have a 4×4 matrix", shape, error=checks.DataError)
    depth, unit = entry.get("depth_file_path"), 1e-3
    if depth is not None:
        unit = positive(entry.get(UNIT, unit), f"{UNIT} of {what}")
    return View(
        str(entry["file_path"]),
        file,
        partial(pose, transform, what, inverted=True, opengl=True),
        partial(_matrix, camera, what),
        None if depth is None else partial(read_depth, folder / str(depth), 1 / unit),
    )


def _camera(entry: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy; nerfstudio's pixels begin at the corner of the first one, as ours do."""
    width, height = float(entry["w"]), float(entry["h"])
    if "fl_x" in entry:
        fx = float(entry["fl_x"])
    else:
        fx = width / 2 / math.tan(float(entry["camera_angle_x"]) / 2)
    fy = float(entry.get("fl_y", fx))
    return fx, fy, float(entry.get("cx", width / 2)), float(entry.get("cy", height / 2))


def _matrix(camera: tuple[float, float, float, float], what: str) -> Tensor:
    fx, fy, cx, cy = camera
    return pinhole_matrix((fx, fy), (cx, cy), what)


LAYOUT = Layout(
    "nerfstudio",
    "nerfstudio",
    "transforms.json, images/…, or a folder of such folders",
    (LISTING, f"*/{LISTING}"),
    read,
)
