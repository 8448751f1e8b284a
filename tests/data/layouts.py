"""One scene, written in the layout of each data set: the tests' own writers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene
from vggt3.geometry.camera import compose_poses
from vggt3.geometry.rotation import random_rotation

SIZE = (48, 64)
SEVEN = (52.5, 52.5)
"""7-Scenes' focal lengths at 64 × 48."""


@dataclass(frozen=True)
class Drawn:
    """A scene in a world that is no camera's."""

    images: Tensor
    """[V, 3, H, W] uint8."""
    depth: Tensor
    """[V, H, W] float64 metres, whole millimetres, 0 where nothing is."""
    pose: Tensor
    """[V, 3, 4] float64 camera_from_world."""
    k: Tensor
    """[3, 3] float64 pixels, origin at the corner."""

    @property
    def out(self) -> Tensor:
        """[V, 4, 4] world_from_camera."""
        return torch.linalg.inv(square(self.pose))


def square(pose: Tensor) -> Tensor:
    last = torch.tensor([0.0, 0, 0, 1]).double().expand(*pose.shape[:-2], 1, 4)
    return torch.cat([pose, last], dim=-2)


def drawn(focal: tuple[float, float] = SEVEN, views: int = 4) -> Drawn:
    height, width = SIZE
    k = torch.tensor([[focal[0], 0, width / 2], [0, focal[1], height / 2], [0, 0, 1]])
    scene = draw_scene(ProceduralConfig(views=views, size=SIZE, outdoors=0.0), 5, 3)
    scene = replace(scene, intrinsics=k.expand(1, views, 3, 3).float())
    batch = render(scene, samples=1)
    dice = torch.Generator().manual_seed(3)
    turn = random_rotation((), dice, torch.float64)
    shift = torch.tensor([[1.0], [-2.0], [0.5]]).double()
    pose = compose_poses(batch.camera_from_world[0].double(), torch.cat([turn, shift], 1))
    depth = (batch.depth[0].double() * 1000).round() / 1000
    depth[:, :2, :3] = 0  # some unknown
    images = (batch.images[0] * 255).round().to(torch.uint8)
    return Drawn(images, depth, pose, k.double())


def save_image(path: Path, image: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(path, quality=95)


def save_depth(path: Path, steps: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(steps.round().numpy().astype(np.uint16)).save(path)


def save_matrix(path: Path, matrix: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix.numpy(), fmt="%.17g")


def write_sevenscenes(root: Path, scene: Drawn) -> None:
    folder = root / "chess" / "seq-03"
    for n, image in enumerate(scene.images):
        save_image(folder / f"frame-{n:06d}.color.png", image)
        mm = torch.where(scene.depth[n] > 0, scene.depth[n] * 1000, 65535)
        save_depth(folder / f"frame-{n:06d}.depth.proj.png", mm)
        save_matrix(folder / f"frame-{n:06d}.pose.txt", scene.out[n])
    (root / "chess" / "TestSplit.txt").write_text("sequence3\nsequence5\n")
    (root / "chess" / "TrainSplit.txt").write_text("sequence1\n")


WRITERS: dict[str, Callable[[Path, Drawn], None]] = {
    "sevenscenes": write_sevenscenes,
}
