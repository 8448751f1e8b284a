"""COLMAP: ``images/`` and a model in ``sparse/0``, ``sparse`` or beside them, text or binary.

Read by pycolmap. Images must be free of distortion (``colmap image_undistorter`` makes them so).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import pinhole_matrix, pose, subfolders
from vggt3.data.readers.record import Scene, View
from vggt3.signals import import_pycolmap

MODELS = ("sparse/0", "sparse", "")
FILES = ("images.bin", "images.txt")
PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")


def read(root: Path, split: str) -> list[Scene]:
    """A model is a scene; of several in ``sparse`` the first."""
    places = [root] if _model(root) else subfolders(root)
    return [_scene(place, model) for place in places if (model := _model(place)) is not None]


def _model(folder: Path) -> Path | None:
    found = (folder / place for place in MODELS)
    return next((p for p in found if any((p / name).is_file() for name in FILES)), None)


def _scene(folder: Path, model: Path) -> Scene:
    try:
        pycolmap = import_pycolmap()
    except ModuleNotFoundError as error:
        told = "be read by pycolmap (pip install 'vggt3[colmap]')"
        raise checks.UsageError(f"'{model}' must {told}, got none") from error
    try:
        content = pycolmap.Reconstruction(str(model))
        images = sorted(content.images.values(), key=lambda image: image.name)
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        short = str(error).splitlines()[0] if str(error) else type(error).__name__
        checks.fail(str(model), "be a COLMAP model", short, error=checks.DataError)
    views = []
    for image in images:
        motion = image.cam_from_world
        motion = motion() if callable(motion) else motion
        matrix = torch.as_tensor(motion.matrix(), dtype=torch.float64).clone()
        camera = _camera(content.cameras[image.camera_id], f"camera {image.camera_id} of {model}")
        views.append(
            View(
                image.name,
                folder / "images" / image.name,
                partial(pose, matrix, f"image {image.name} of {model}"),
                partial(_intrinsics, camera, f"the camera of {image.name} in {model}"),
            )
        )
    return Scene("colmap", folder.name, tuple(views), "")


def _camera(camera: Any, what: str) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy; COLMAP's pixels begin at the corner of the first one, as ours do."""
    name = str(getattr(camera.model, "name", camera.model))
    known, told = name in PINHOLES, f"be a {' or '.join(PINHOLES)} (undistort the images)"
    checks.require(known, what, told, name, error=checks.DataError)
    *focal, cx, cy = (float(value) for value in camera.params)
    return focal[0], focal[-1], cx, cy


def _intrinsics(camera: tuple[float, float, float, float], what: str) -> Tensor:
    fx, fy, cx, cy = camera
    return pinhole_matrix((fx, fy), (cx, cy), what)


LAYOUT = Layout(
    "colmap",
    "COLMAP",
    "images/…, sparse/0/{cameras,images,points3D}.bin or .txt, or a folder of such folders",
    tuple(f"{above}{place}/{name}".replace("//", "/").lstrip("/")
          for above in ("", "*/") for place in MODELS for name in FILES),
    read,
)  # fmt: skip
