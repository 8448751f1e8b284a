"""The GLB, opened again by trimesh."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tests.io.drawn_scene import drawn_scene
from tests.io.scenes import write_scene
from vggt3.io.export.colours import camera_colours
from vggt3.io.export.glb import linear, write_glb
from vggt3.io.scene_folder import open_scene
from vggt3.types import Cameras

trimesh = pytest.importorskip("trimesh")

TO_OURS = np.diag([1.0, -1.0, -1.0])
"""glTF: y up, z towards the viewer."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cameras]:
    place = tmp_path_factory.mktemp("glb")
    cameras = write_scene(place / "scene")[0]
    with open_scene(place / "scene") as scene:
        write_glb(place / "s.glb", scene.cameras, scene.names, scene.cloud(2000, 25.0))
    return place / "s.glb", cameras


@pytest.fixture(scope="module")
def opened(file: tuple[Path, Cameras]) -> Any:
    return trimesh.load(file[0])


def placed(scene: Any, node: str) -> Any:
    """A node's geometry in the file's world."""
    turn, name = scene.graph[node]
    return scene.geometry[name].copy().apply_transform(turn)


def test_nodes_are_points_and_cameras(opened: Any) -> None:
    cameras = [f"camera view_{n}.png" for n in range(5)]
    assert sorted(opened.graph.nodes_geometry) == [*cameras, "points"]


def test_points_are_the_scene_s(opened: Any) -> None:
    cloud = placed(opened, "points")
    assert len(cloud.vertices) == 2000
    dense = drawn_scene(5)[2]
    truth = np.concatenate([view.points.reshape(-1, 3).numpy() for view in dense])
    photos = [photo.image.reshape(3, -1).T.numpy() for photo in drawn_scene(5)[0].photos]
    distance, nearest = cKDTree(truth).query(cloud.vertices @ TO_OURS)
    assert distance.max() < 1e-5
    assert (cloud.colors[:, :3] == linear(np.concatenate(photos))[nearest]).mean() > 0.99


def test_a_frustum_stands_where_its_camera_is(file: tuple[Path, Cameras], opened: Any) -> None:
    poses = file[1].world_from_camera.double().numpy()
    for n, pose in enumerate(poses):
        corners = placed(opened, f"camera view_{n}.png").vertices @ TO_OURS
        local = (corners - pose[:, 3]) @ pose[:, :3]  # in the camera's frame
        size, k = file[1].sizes[n], file[1].intrinsics[n].numpy()
        assert np.linalg.norm(local, axis=1).min() < 0.03
        far = local[local[:, 2] > 0.9 * local[:, 2].max()]
        # The far corners look through the photo's corners.
        reach = np.abs(far[:, :2] / far[:, 2:]).max(axis=0)
        wanted = [size[1] / 2 / k[0, 0], size[0] / 2 / k[1, 1]]
        np.testing.assert_allclose(reach, wanted, rtol=0.05)
        assert local[:, 2].min() > -0.03


def test_colours_are_linear_light_shown_as_they_are(file: tuple[Path, Cameras]) -> None:
    assert linear(np.array([0, 10, 128, 255], np.uint8)).tolist() == [0, 1, 55, 255]
    data = file[0].read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + length])
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    for material in tree["materials"]:
        assert material["extensions"] == {"KHR_materials_unlit": {}}
    assert tree["asset"]["generator"].startswith("vggt3 ")


def test_cameras_have_the_preview_s_colours(opened: Any) -> None:
    for n, colour in enumerate(camera_colours(5)):
        material = opened.geometry[f"camera view_{n}.png"].visual.material
        assert material.baseColorFactor.tolist() == [*linear(colour).tolist(), 255]
