"""How far queries' poses are from the truth in the map's metric frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from vggt3.geometry.rotation import rotation_angle
from vggt3.metrics.medians import medians
from vggt3.metrics.trajectory import trajectory_error

LIMITS = (10, 20, 30)
"""k of (k°, k cm)."""


def pose_errors(
    predicted: Tensor,  # [Q, 3, 4] camera_from_world, in the truth's frame and metres
    truth: Tensor,  # [Q, 3, 4] camera_from_world
) -> tuple[Tensor, Tensor]:
    """Rotation error in degrees and distance of the centres in metres: two of [Q]."""
    ours, theirs = predicted.double(), truth.double()
    turn = ours[..., :3] @ theirs[..., :3].transpose(-1, -2)
    return rotation_angle(turn).rad2deg(), trajectory_error(ours, theirs)


class QueryAccuracy(Metric):
    """Mean and median errors of queries, and the share under (k°, k cm), over all seen.

    A query without a finite answer is under no limit and left out of means and medians.
    """

    full_state_update = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.errors: list[Tensor]
        self.add_state("errors", [], dist_reduce_fx="cat")

    def update(
        self,
        predicted: Tensor,  # [Q, 3, 4] camera_from_world, aligned
        truth: Tensor,  # [Q, 3, 4] camera_from_world
    ) -> None:
        """Add queries."""
        self.errors.append(torch.stack(pose_errors(predicted, truth), dim=-1))

    def compute(self) -> dict[str, Tensor]:
        """``rotation`` (°), ``translation`` (m), their medians, ``under 10`` … (percent), and
        ``queries``."""
        errors = dim_zero_cat(self.errors)
        rotation, translation = errors.unbind(-1)
        known = rotation.isfinite() & translation.isfinite()
        middle = medians(errors[known].T)
        found = {
            "rotation": rotation[known].mean(),
            "translation": translation[known].mean(),
            "rotation median": middle[0],
            "translation median": middle[1],
        }
        for k in LIMITS:
            under = known & (rotation < k) & (translation < k / 100)
            found[f"under {k}"] = 100 * under.double().mean()
        found["queries"] = torch.tensor(float(len(rotation)), dtype=torch.float64)
        return found
