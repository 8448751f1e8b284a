"""How far a predicted camera path is from the true one (ATE and RPE).

ATE: root mean square distance of camera centres after the best similarity (Umeyama). RPE: root
mean square error of the motion from each frame to the next, its translation after the same
similarity's scale, its rotation as an angle. All in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggt3 import checks
from vggt3.geometry.alignment import Similarity, umeyama
from vggt3.geometry.camera import camera_centres, compose_poses, invert_pose
from vggt3.geometry.rotation import rotation_angle


def align_cameras(
    predicted: Tensor,  # [V, 3, 4] camera_from_world
    truth: Tensor,  # [V, 3, 4] camera_from_world
) -> Similarity:
    """The Sim(3) that takes predicted camera centres to the true ones.

    Raises:
        DataError: fewer than three cameras, all on one line, or a pose that is not finite.
    """
    ours, theirs = camera_centres(predicted.double()), camera_centres(truth.double())
    finite = ours.isfinite().all(-1)
    return umeyama(ours[finite], theirs[finite])


def trajectory_error(
    predicted: Tensor,  # [V, 3, 4] camera_from_world, aligned
    truth: Tensor,  # [V, 3, 4] camera_from_world
) -> Tensor:
    """Distance of each camera's centre from the true one: [V]."""
    apart = camera_centres(predicted.double()) - camera_centres(truth.double())
    return torch.linalg.vector_norm(apart, dim=-1)


def relative_errors(
    predicted: Tensor,  # [V, 3, 4] camera_from_world, aligned
    truth: Tensor,  # [V, 3, 4] camera_from_world
    delta: int = 1,
) -> tuple[Tensor, Tensor]:
    """Errors of the motion from frame i to i + ``delta``: translation, and rotation in radians.

    Two of [V − delta]: length and angle of (true motion)⁻¹ · (predicted motion).
    """
    steps = []
    for cameras in (predicted.double(), truth.double()):
        first, later = cameras[:-delta], cameras[delta:]
        steps.append(compose_poses(first, invert_pose(later)))  # first from later
    wrong = compose_poses(invert_pose(steps[1]), steps[0])
    return torch.linalg.vector_norm(wrong[..., 3], dim=-1), rotation_angle(wrong[..., :3])


def rms(errors: Tensor) -> Tensor:
    """Root of the mean square."""
    return errors.square().mean().sqrt()


class TrajectoryError(Metric):
    """ATE, and RPE over one frame: plain means of each scene's root mean squares.

    A scene whose cameras cannot be aligned (all on one line, fewer than three, not finite) is
    counted in ``lost`` and left out of the means.
    """

    higher_is_better = False
    full_state_update = False

    def __init__(self, delta: int = 1, **options: Any) -> None:
        """Args:
        delta: frames of RPE's motion.
        options: torchmetrics'.
        """
        super().__init__(**options)
        self.delta = delta
        self.total: Tensor
        self.scenes: Tensor
        self.lost: Tensor
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("total", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("scenes", zero, dist_reduce_fx="sum")
        self.add_state("lost", zero.clone(), dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,  # [V, 3, 4] camera_from_world, any frame and unit
        truth: Tensor,  # [V, 3, 4] camera_from_world
    ) -> None:
        """Add one scene, frames in their order."""
        wrong = not bool(predicted.isfinite().all())
        try:
            motion = None if wrong else align_cameras(predicted, truth)
        except checks.DataError:
            motion = None
        if motion is None:
            self.lost += 1
            return
        moved = motion.apply_to_cameras(predicted.double())
        translation, rotation = relative_errors(moved, truth, self.delta)
        found = [trajectory_error(moved, truth), translation, rotation.rad2deg()]
        self.total += torch.stack([rms(errors) for errors in found]).to(self.total)
        self.scenes += 1

    def compute(self) -> dict[str, Tensor]:
        """``ate`` and ``rpe translation`` in the truth's unit, ``rpe rotation`` in degrees (nan
        without a scene), and ``lost``."""
        names = ("ate", "rpe translation", "rpe rotation")
        return {**dict(zip(names, self.total / self.scenes)), "lost": self.lost}
