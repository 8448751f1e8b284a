"""A COLMAP model: one PINHOLE camera a photo, coloured points and their tracks.

Written by pycolmap (the ``colmap`` extra). COLMAP's conventions are ours: OpenCV axes,
camera-from-world poses, pixels counted from the corner of the top-left one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vggt3 import checks
from vggt3.io.export.sampled_cloud import Cloud
from vggt3.io.export.tracks import Observations
from vggt3.signals import import_pycolmap
from vggt3.types import Cameras


@dataclass(frozen=True)
class ColmapSummary:
    """What pycolmap says of the model that was written."""

    points: int
    observations: int
    shared: int
    """Points that at least two views see."""


def load_pycolmap() -> Any:
    """pycolmap, or UsageError saying how to install it."""
    try:
        return import_pycolmap()
    except ImportError as error:
        checks.fail("a COLMAP model", "be written by pycolmap (pip install 'vggt3[colmap]')", error)


def write_colmap(
    folder: Path,
    cameras: Cameras,  # V of them, at the photos' original sizes
    names: Sequence[str],  # V photos
    cloud: Cloud,
    observations: Observations,
    *,
    form: Literal["binary", "text"] = "binary",
) -> ColmapSummary:
    """Write the model into ``folder``, which exists; ids count from 1 in the order of views."""
    pycolmap = load_pycolmap()
    spaced = [name for name in names if name.split() != [name]] if form == "text" else []
    if spaced:
        # COLMAP's own reader ends the name at the first space.
        wanted = "be left out where a photo's name has a space in it"
        checks.fail("--text", wanted, f"'{spaced[0]}'")
    model = pycolmap.Reconstruction()
    place = torch.zeros(len(observations), dtype=torch.int64)  # of a sighting within its view
    for index, name in enumerate(names):
        here = torch.nonzero(observations.view == index).squeeze(-1)
        place[here] = torch.arange(len(here))
        _add_view(pycolmap, model, cameras, index, name, observations.pixels[here].numpy())
    _add_points(pycolmap, model, cloud, observations, place)
    model.update_point_3d_errors()
    if form == "binary":
        model.write_binary(str(folder))
    else:
        model.write_text(str(folder))
    lengths = torch.bincount(observations.point, minlength=len(cloud))
    return ColmapSummary(
        points=model.num_points3D(),
        observations=model.compute_num_observations(),
        shared=int((lengths >= 2).sum()),
    )


def _add_view(
    pycolmap: Any,
    model: Any,
    cameras: Cameras,
    index: int,
    name: str,
    pixels: np.ndarray,  # [M, 2] float64
) -> None:
    height, width = cameras.sizes[index]
    k = cameras.intrinsics[index]
    number = index + 1  # COLMAP's own ids begin at 1
    camera = pycolmap.Camera(
        model="PINHOLE",
        width=width,
        height=height,
        params=[float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])],
        camera_id=number,
    )
    model.add_camera_with_trivial_rig(camera)
    image = pycolmap.Image(name=name, keypoints=pixels, camera_id=number, image_id=number)
    pose = pycolmap.Rigid3d(cameras.camera_from_world[index].double().numpy())
    model.add_image_with_trivial_frame(image, pose)


def _add_points(
    pycolmap: Any,
    model: Any,
    cloud: Cloud,
    observations: Observations,
    place: torch.Tensor,  # [M] int64
) -> None:
    order = torch.argsort(observations.point, stable=True)
    image_ids = (observations.view[order] + 1).tolist()
    places = place[order].tolist()
    ends = torch.bincount(observations.point, minlength=len(cloud)).cumsum(0).tolist()
    xyz, rgb = cloud.xyz.double().numpy(), cloud.rgb.numpy()
    start = 0
    for point, end in enumerate(ends):
        elements = [pycolmap.TrackElement(image_ids[n], places[n]) for n in range(start, end)]
        model.add_point3D(xyz[point], pycolmap.Track(elements), rgb[point])
        start = end
