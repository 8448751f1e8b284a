"""What a drawn scene is made of: tensors only, no picture yet.

The scene's own frame has z upwards and metres. Every solid is a unit shape (the cube [-1, 1]³,
the ball of radius 1, or the upright cylinder of radius 1 and z in [-1, 1]) seen through an affine
map, so that one ray parameter t serves all: with camera directions of z = 1, t is the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks

SHELL, BOX, BALL, CYLINDER = range(4)
"""The kinds of solid, in the order of their slots. A shell is a box seen from the inside; the
union of a scene's shells is the space that the scene happens in."""

SIDES_X, SIDES_Y, TOP, BOTTOM = range(4)
"""The four materials of a solid, by the face of its unit shape that is seen."""


@dataclass(frozen=True)
class SceneParameters:
    """B scenes of V cameras, K solids in fixed slots, M materials, L lights."""

    local_from_world: Tensor
    """[B, K, 3, 4] affine map to the unit shape; shells, then boxes, balls, cylinders."""
    half_m: Tensor
    """[B, K, 3] half extents in metres along the unit shape's axes."""
    face_material: Tensor
    """[B, K, 4] int64 rows of ``materials``: sides facing x, sides facing y, top, bottom."""
    counts: Tensor
    """[B, 4] int64, always on the CPU: used slots of each kind; the rest holds nothing."""
    materials: Tensor
    """[B, M, P] see ``materials.Column``."""
    lights: Tensor
    """[B, L, 10] position 3 (m), colour 3 (irradiance at ``reach``), reach (m), casts shadow
    (1), radius (m), the shell whose walls let it through (a window's, −1: none)."""
    ambient: Tensor
    """[B, 6] light from above and from below, RGB."""
    sky: Tensor
    """[B, 8] 1 where there is no ceiling (0 indoors), zenith RGB, horizon RGB, clouds."""
    camera_from_world: Tensor
    """[B, V, 3, 4] OpenCV axes, metres; the world is the scene's own frame."""
    intrinsics: Tensor
    """[B, V, 3, 3] pixels, origin at the corner of the top-left pixel."""
    photometry: Tensor
    """[B, V, Q] see ``photometry.Column``."""
    seed: Tensor
    """[B] int64 in [0, 2²²): what the textures' and the sensor's noise start from."""
    slots: tuple[int, int, int, int]
    """K = the sum: slots for shells, boxes, balls, cylinders."""
    size: tuple[int, int]
    """(height, width) of the images in pixels."""
    jpeg: bool = False
    """Whether the photos are compressed."""

    @property
    def batch(self) -> int:
        """B."""
        return self.seed.shape[0]

    @property
    def views(self) -> int:
        """V."""
        return self.camera_from_world.shape[1]

    def first_slot(self, kind: int) -> int:
        """The first of a kind's slots."""
        return sum(self.slots[:kind])

    def tensors(self) -> dict[str, Tensor]:
        """Every field but ``slots``, ``size`` and ``jpeg``."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> SceneParameters:
        """The same scenes on ``device``; what leaves the host goes in one copy."""
        device = torch.device(device)
        parts = {name: value for name, value in self.tensors().items() if name != "counts"}
        moved: dict[str, Any]
        if self.seed.device.type == "cpu" and device.type != "cpu":
            moved = dict(zip(parts, _sent([*parts.values()], device), strict=True))
        else:
            moved = {name: value.to(device) for name, value in parts.items()}
        return replace(self, **moved)


ALIGNMENT = 16
"""Bytes; every tensor of a parcel begins at a multiple."""


def _sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copies on ``device`` of tensors of the host, packed into one parcel and sent together.

    Ten small copies from ordinary memory would each wait for what the device is doing. To a CUDA
    device the parcel leaves from page-locked memory, and nothing waits: torch's allocator keeps
    that memory from being used again until the copy has run, and what follows on the same stream
    sees its values.
    """
    sizes = [-(-t.nbytes // ALIGNMENT) * ALIGNMENT for t in tensors]
    locked = device.type == "cuda"
    parcel = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=locked)

    def opened(whole: Tensor) -> list[Tensor]:
        return [
            piece[: t.nbytes].view(t.dtype).view(t.shape)
            for piece, t in zip(whole.split(sizes), tensors, strict=True)
        ]

    for place, tensor in zip(opened(parcel), tensors, strict=True):
        place.copy_(tensor)
    return opened(parcel.to(device, non_blocking=locked))


def collate(scenes: Sequence[SceneParameters]) -> SceneParameters:
    """One batch of scenes that were drawn with one configuration."""
    checks.require(len(scenes) > 0, "scenes", "number at least one", 0)
    for name in ("slots", "size", "jpeg", "views"):
        found = sorted({getattr(scene, name) for scene in scenes})
        checks.require(len(found) == 1, f"{name} of a batch", "be the same", found)
    parts = [scene.tensors() for scene in scenes]
    joined: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return replace(scenes[0], **joined)


@dataclass(frozen=True)
class SceneBatch:
    """B rendered scenes of V views with their ground truth."""

    images: Tensor
    """[B, V, 3, H, W] RGB in [0, 1]."""
    depth: Tensor
    """[B, V, H, W] along z, metres; 0 where nothing was hit."""
    valid: Tensor
    """[B, V, H, W] bool: depth is known (false in the sky)."""
    camera_from_world: Tensor
    """[B, V, 3, 4] OpenCV axes, metres; the world is the first view's camera frame."""
    intrinsics: Tensor
    """[B, V, 3, 3] pixels, origin at the corner of the top-left pixel (centres at + 0.5)."""
