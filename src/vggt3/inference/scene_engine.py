"""The engine as scenes use it: with the identity of its model, and poses made cameras."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vggt3.geometry.camera import decode_pose
from vggt3.inference.engine import PIXEL_CENTRE, Engine
from vggt3.inference.identity import ModelIdentity, identity_of
from vggt3.inference.options import RunOptions
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Cameras


class SceneEngine(Engine):
    """An engine that knows the model that it was given, of which it runs a copy."""

    def __init__(self, model: VGGT3, options: RunOptions | None = None) -> None:
        super().__init__(model, options)
        self.given = model

    @property
    def identity(self) -> ModelIdentity:
        """Of the model as it was given: its own copy may be rounded."""
        return identity_of(self.given)

    def decode(
        self,
        pose: Tensor,  # [N, 9] what the camera head says, on any device
        sizes: Sequence[tuple[int, int]],  # (height, width) of each of the N views
    ) -> Cameras:
        """Cameras in fp32 where ``pose`` lies, pixels counted from the corner of the first."""
        rows, different = pose.float(), list(dict.fromkeys(sizes))
        # Of one size, nothing is sent to the device, so nothing waits for it.
        poses, intrinsics = decode_pose(rows, different[0])
        for size in different[1:]:
            places = [n for n, own in enumerate(sizes) if own == size]
            poses[places], intrinsics[places] = decode_pose(rows[places], size)
        intrinsics[:, :2, 2] += PIXEL_CENTRE - self.model.config.pixel_offset
        return Cameras(poses, intrinsics, tuple(sizes))
