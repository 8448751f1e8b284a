"""How far two answers about the same photos lie apart, in one world."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vggt3.geometry.camera import camera_centres
from vggt3.geometry.rotation import rotation_angle
from vggt3.metrics.medians import median


@dataclass(frozen=True)
class CameraGap:
    """Medians over photos."""

    rotation_deg: float
    """Angle between the cameras."""
    centre: float
    """Distance of the centres, as a share of the scene's extent (:func:`extent_of`)."""

    def describe(self) -> str:
        """For people."""
        return f"rotation {self.rotation_deg:.2g}°, centre {100 * self.centre:.2g} % of the extent"


def extent_of(
    camera_from_world: Tensor,  # [V, 3, 4]
) -> float:
    """Root mean square distance of the cameras' centres from their mean."""
    centres = camera_centres(camera_from_world.double())
    return float((centres - centres.mean(0)).square().sum(-1).mean().sqrt())


def angles_deg(
    ours: Tensor,  # [Q, 3, 4] camera_from_world
    theirs: Tensor,  # [Q, 3, 4] camera_from_world of the same photos in the same world
) -> Tensor:
    """[Q] angles between the cameras."""
    return rotation_angle(ours[:, :, :3].transpose(-1, -2) @ theirs[:, :, :3]).rad2deg()


def camera_gap(
    ours: Tensor,  # [Q, 3, 4] camera_from_world
    theirs: Tensor,  # [Q, 3, 4] camera_from_world of the same photos in the same world
    extent: float,
) -> CameraGap:
    """Medians of rotation and centre distance."""
    a, b = ours.double(), theirs.double()
    turn = angles_deg(a, b)
    away = (camera_centres(a) - camera_centres(b)).norm(dim=-1)
    return CameraGap(median(turn), median(away) / max(extent, 1e-30))
