"""The drawn world as a scene's folder, and what its exact geometry says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.io.drawn_scene import _cast, drawn_scene
from vggt3.io import SceneArchiveWriter, write_cameras_json
from vggt3.types import Cameras, DenseView

SIZES = ((56, 84), (84, 56))


def write_scene(folder: Path, views: int = 5) -> tuple[Cameras, list[DenseView]]:
    """What exporters read of a scene, exact, in ``folder``; its cameras at the photos' sizes."""
    photos, cameras, dense = drawn_scene(views, SIZES)
    original = cameras.resized(photos.original_sizes)
    folder.mkdir(parents=True)
    write_cameras_json(folder / "cameras.json", original, photos.names, name=folder.name)
    with SceneArchiveWriter(folder / "scene.npz") as archive:
        for view, photo in zip(dense, photos.photos, strict=True):
            archive.add(photo.name, view, photo.image)
    return original, dense


def write_photos(folder: Path, views: int = 5) -> None:
    """The photos of :func:`write_scene` at their original sizes."""
    folder.mkdir(parents=True)
    for photo in drawn_scene(views, SIZES)[0].photos:
        picture = Image.fromarray(photo.image.permute(1, 2, 0).numpy())
        picture.resize(photo.original_size[::-1]).save(folder / photo.name)


def true_depth(
    first_from_camera: NDArray[np.float64],  # [4, 4]
    matrix: NDArray[np.float64],  # [3, 3]
    pixel: NDArray[np.float64],  # [2] x, y
    world_from_first: NDArray[np.float64],  # [4, 4] of the drawn world
) -> float:
    """Depth along z of the surface that is really seen at ``pixel``, by casting one ray."""
    shifted = matrix.copy()
    shifted[:2, 2] += 0.5 - pixel  # so that the only pixel's centre is the one wanted
    return float(_cast(world_from_first @ first_from_camera, shifted, (1, 1))[1][0, 0])
