"""nerfstudio's files, read with its own conventions by hand and its PLY by another library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tests.io.scenes import write_scene
from vggt3.io.export.nerfstudio import write_nerfstudio
from vggt3.io.scene_folder import open_scene
from vggt3.types import DenseView

Written = tuple[dict[str, Any], Path, list[DenseView]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    place = tmp_path_factory.mktemp("nerfstudio")
    dense = write_scene(place / "scene")[1]
    with open_scene(place / "scene") as scene:
        write_nerfstudio(place, scene.cameras, scene.names, scene.cloud(2000, 25.0))
    return json.loads((place / "transforms.json").read_text("utf-8")), place, dense


def opengl_points(frame: dict[str, Any], depth: NDArray[np.float32]) -> NDArray[np.float64]:
    """[h, w, 3] in the file's world: x right, y up, looking along −z."""
    rows, columns = depth.shape
    x, y = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    x, y = x * frame["w"] / columns, y * frame["h"] / rows
    right = (x - frame["cx"]) / frame["fl_x"] * depth
    up = -(y - frame["cy"]) / frame["fl_y"] * depth
    local = np.stack([right, up, -depth, np.ones_like(right)], axis=-1)
    return (local @ np.array(frame["transform_matrix"]).T)[..., :3]


def test_frames_and_points_lie_in_one_world(written: Written) -> None:
    content, place, dense = written
    trimesh = pytest.importorskip("trimesh")
    ply = np.asarray(trimesh.load(place / content["ply_file_path"]).vertices)
    assert len(ply) == 2000
    views = [
        opengl_points(frame, view.depth.numpy())
        for frame, view in zip(content["frames"], dense, strict=True)
    ]
    everything = np.concatenate([points.reshape(-1, 3) for points in views])
    assert cKDTree(everything).query(ply)[0].max() < 1e-4


def test_the_scene_s_world_is_one_turn_away(written: Written) -> None:
    content, _, dense = written
    turn = np.array(content["applied_transform"])
    assert turn.shape == (3, 4)
    assert np.linalg.det(turn[:, :3]) == pytest.approx(1)
    for frame, view in zip(content["frames"], dense, strict=True):
        told = opengl_points(frame, view.depth.numpy())
        ours = view.points.double().numpy() @ turn[:, :3].T + turn[:, 3]
        np.testing.assert_allclose(told, ours, atol=1e-4)


def test_up_in_the_first_photo_is_z(written: Written) -> None:
    first = np.array(written[0]["frames"][0]["transform_matrix"])
    np.testing.assert_allclose(first[:3, 1], [0, 0, 1], atol=1e-6)  # the camera's up
    np.testing.assert_allclose(first[:3, 2], [0, -1, 0], atol=1e-6)  # backwards: it looks along +y


def test_names_and_sizes(written: Written) -> None:
    frames = written[0]["frames"]
    assert [frame["file_path"] for frame in frames] == [f"images/view_{n}.png" for n in range(5)]
    assert [(frame["w"], frame["h"]) for frame in frames[:2]] == [(168, 112), (112, 168)]
