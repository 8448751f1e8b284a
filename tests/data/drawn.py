"""Scenes made by hand: a few solids, one or more cameras, nothing random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vggt3.data.procedural.build import SHELLS, Solid, SolidArrays, yaw_rotation
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.scene import SceneParameters
from vggt3.data.procedural.scenes import draw_scene

SLOTS = (SHELLS, 4, 4, 4)
LEVEL = yaw_rotation(0.0)
PLAIN = (0, 0, 0, 0)
ROOM = Solid((0.0, 0.0, 1.5), (4.0, 3.0, 1.5), LEVEL, PLAIN)


def scene_of(
    solids: Sequence[Sequence[Solid]],
    camera_from_world: Tensor,  # [V, 3, 4]
    intrinsics: Tensor,  # [V, 3, 3]
    size: tuple[int, int],
) -> SceneParameters:
    """One scene of the given (shells, boxes, balls, cylinders)."""
    arrays = SolidArrays.of(solids, SLOTS)
    views = camera_from_world.shape[0]
    drawn = draw_scene(ProceduralConfig(views=views, size=size, outdoors=0, abstract=0), 0, 0)
    return replace(
        drawn,
        local_from_world=torch.from_numpy(arrays.local_from_world).float()[None],
        half_m=torch.from_numpy(arrays.half).float()[None],
        face_material=torch.from_numpy(arrays.faces)[None],
        counts=torch.tensor([arrays.counts]),
        camera_from_world=camera_from_world.float()[None],
        intrinsics=intrinsics.float()[None],
        slots=SLOTS,
    )


def quiet(scenes: SceneParameters) -> SceneParameters:
    """The same scenes photographed without noise, blur, vignette or changing light."""
    photometry = torch.zeros_like(scenes.photometry)
    photometry[..., [0, 1, 2, 6]] = 1.0
    return replace(scenes, photometry=photometry)
