"""``transforms.json`` and a PLY of points, as nerfstudio reads them.

A frame's ``transform_matrix`` is world-from-camera with OpenGL's camera axes (x right, y up,
z backward). The world is turned once, so that what was up in the first photo is +z:
``applied_transform`` (3×4) takes the scene's own world to the file's, and the PLY is in the
file's too. ``file_path`` and ``ply_file_path`` are below the folder of the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vggt3.io.export.ply import write_cloud
from vggt3.io.export.sampled_cloud import Cloud
from vggt3.types import Cameras

IMAGES = "images"
"""The folder of the photos."""
POINTS = "sparse_pc.ply"

_FILE_FROM_WORLD = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
"""Rows: x stays, the first camera's z (forward) becomes y, its −y (up) becomes z."""


def write_nerfstudio(
    folder: Path,
    cameras: Cameras,  # V of them, at the photos' original sizes
    names: Sequence[str],  # V photos, below ``images/``
    cloud: Cloud,
) -> None:
    """Write ``transforms.json`` and ``sparse_pc.ply`` into ``folder``, which exists."""
    turn = torch.tensor(_FILE_FROM_WORLD, dtype=torch.float64)
    poses = cameras.world_from_camera.double()
    frames = [
        _frame(name, cameras.sizes[n], cameras.intrinsics[n], turn @ poses[n])
        for n, name in enumerate(names)
    ]
    applied = torch.cat([turn, torch.zeros(3, 1, dtype=torch.float64)], dim=-1)
    content = {
        "camera_model": "OPENCV",
        "applied_transform": applied.tolist(),
        "ply_file_path": POINTS,
        "frames": frames,
    }
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "transforms.json").write_text(text + "\n", encoding="utf-8")
    write_cloud(folder / POINTS, (cloud.xyz.double() @ turn.T).float(), cloud.rgb)


def _frame(
    name: str,
    size: tuple[int, int],
    intrinsics: Tensor,  # [3, 3] pixels
    pose: Tensor,  # [3, 4] file's world from OpenCV camera
) -> dict[str, object]:
    height, width = size
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] = pose
    matrix[:3, 1:3] *= -1  # OpenCV's y and z axes are OpenGL's turned round.
    return {
        "file_path": f"{IMAGES}/{name}",
        "w": width,
        "h": height,
        "fl_x": float(intrinsics[0, 0]),
        "fl_y": float(intrinsics[1, 1]),
        "cx": float(intrinsics[0, 2]),
        "cy": float(intrinsics[1, 2]),
        "k1": 0.0,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
        "transform_matrix": matrix.tolist(),
    }
