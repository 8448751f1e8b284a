"""A binary glTF file: the coloured points and each camera as a frustum.

Written by trimesh (the ``glb`` extra). glTF has y up and z towards the viewer: the scene's world
is turned half round its x axis. Vertex colours in glTF are linear, so sRGB is decoded first.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggt3 import __version__, checks
from vggt3.io.export.cloud_panel import frustum_corners
from vggt3.io.export.colours import camera_colours
from vggt3.io.export.sampled_cloud import Cloud
from vggt3.io.export.viewpoint import Array, scene_frame
from vggt3.types import Cameras

MAGIC = b"glTF"
"""The first bytes of such a file."""

POINTS = "points"
"""The name of the points' node; a camera's is ``camera NAME``."""

_UNLIT = "KHR_materials_unlit"
_GLTF_FROM_WORLD = np.diag([1.0, -1.0, -1.0])
_LENGTH = 0.12
"""Of a frustum's edges, over the scene's radius."""
_THICKNESS = 0.012
"""Radius of a frustum's bars over the length of its edges."""
_BARS = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


def load_trimesh() -> Any:
    """trimesh, or UsageError saying how to install it."""
    try:
        return importlib.import_module("trimesh")
    except ImportError as error:
        checks.fail("a GLB file", "be written by trimesh (pip install 'vggt3[glb]')", error)


def write_glb(
    path: Path,
    cameras: Cameras,  # V of them
    names: Sequence[str],  # V photos
    cloud: Cloud,
) -> None:
    """Write the file; frustums are bars, for viewers draw lines too thin to see."""
    trimesh = load_trimesh()
    poses = cameras.world_from_camera.double().numpy()
    intrinsics = cameras.intrinsics.double().numpy()
    points = cloud.xyz.double().numpy()
    length = _LENGTH * scene_frame(points, poses).radius
    scene = trimesh.Scene()
    colours = np.concatenate(
        [linear(cloud.rgb.numpy()), np.full((len(cloud), 1), 255, np.uint8)], axis=1
    )
    scene.add_geometry(
        trimesh.PointCloud(points @ _GLTF_FROM_WORLD.T, colours),
        node_name=POINTS,
        geom_name=POINTS,
    )
    for n, (name, colour) in enumerate(zip(names, camera_colours(len(names)), strict=True)):
        corners = frustum_corners(poses[n], intrinsics[n], cameras.sizes[n], length)
        mesh = _bars(trimesh, corners @ _GLTF_FROM_WORLD.T, length * _THICKNESS)
        paint = trimesh.visual.material.PBRMaterial(
            baseColorFactor=np.array([*linear(colour), 255], np.uint8), metallicFactor=0.0
        )
        mesh.visual = trimesh.visual.TextureVisuals(material=paint)
        scene.add_geometry(mesh, node_name=f"camera {name}", geom_name=f"camera {name}")
    path.write_bytes(scene.export(file_type="glb", tree_postprocessor=_unlit))


def linear(srgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """8-bit sRGB as 8-bit linear light."""
    value = srgb.astype(np.float64) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.rint(light * 255).astype(np.uint8)


def _bars(
    trimesh: Any,
    corners: Array,  # [5, 3]: the centre, then the image's corners
    radius: float,
) -> Any:
    """A frustum of square bars."""
    bars = [
        trimesh.creation.cylinder(radius=radius, segment=corners[list(ends)], sections=4)
        for ends in _BARS
    ]
    joined = trimesh.util.concatenate(bars)
    joined.metadata.clear()  # the first bar's
    return joined


def _unlit(tree: dict[str, Any]) -> None:
    """Colours are shown as they are: glTF's own material is bare metal, black without a sky."""
    tree["asset"]["generator"] = f"vggt3 {__version__}"
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), _UNLIT]
    for material in tree["materials"]:
        material["extensions"] = {_UNLIT: {}}
