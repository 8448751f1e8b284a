"""How far predicted cameras are from the truth.

Poses are scored on all pairs i < j of a scene: the angle between relative
rotations, and the angle between directions of relative translation with its sign left open.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggt3.geometry.camera import relative_poses
from vggt3.geometry.rotation import angle_between, rotation_angle

LIMITS_DEG = (5, 15, 30)
"""k of RRA@k and RTA@k."""

STILL = 0.01
"""Baselines shorter than this share of the scene's median depth have no direction."""


def pair_errors_deg(
    predicted: Tensor,  # [B, V, 3, 4] camera_from_world
    truth: Tensor,  # [B, V, 3, 4] camera_from_world
) -> tuple[Tensor, Tensor]:
    """Rotation and translation error of every pair i < j: two of [B, V·(V−1)/2], degrees.

    Where the truth does not move a translation has no error; where only the prediction does not,
    it has no direction, and the largest error: 90.
    """
    views = predicted.shape[-3]
    rows, columns = torch.triu_indices(views, views, 1, device=predicted.device)
    ours = relative_poses(predicted)[..., rows, columns, :, :]
    theirs = relative_poses(truth)[..., rows, columns, :, :]
    rotation = rotation_angle(ours[..., :3].transpose(-1, -2) @ theirs[..., :3])
    translation = sign_free_deg(angle_between(ours[..., 3], theirs[..., 3]).rad2deg())
    still, moves = (ours[..., 3] == 0).all(-1), (theirs[..., 3] != 0).any(-1)
    return rotation.rad2deg(), torch.where(still & moves, 90.0, translation)


def sign_free_deg(
    angle_deg: Tensor,  # [...] in [0, 180]
) -> Tensor:
    """The angle between two undirected lines: min(e, 180 − e)."""
    return torch.minimum(angle_deg, 180 - angle_deg)


def baselines(
    truth: Tensor,  # [B, V, 3, 4] camera_from_world
) -> Tensor:
    """Distance between the cameras of every pair i < j: [B, V·(V−1)/2]."""
    views = truth.shape[-3]
    rows, columns = torch.triu_indices(views, views, 1, device=truth.device)
    relative = relative_poses(truth)[..., rows, columns, :, 3]
    return torch.linalg.vector_norm(relative, dim=-1)


def still_baseline(
    depth: Tensor,  # [B, V, H, W] along z
    valid: Tensor,  # [B, V, H, W] bool
) -> Tensor:
    """Shortest baseline with a direction [B]: a share of the median depth, 0 if none is known."""
    known = torch.where(valid, depth, torch.nan)
    return STILL * known.flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)


def sideways(
    truth: Tensor,  # [B, V, 3, 4] camera_from_world
) -> Tensor:
    """The trivial guess: every camera looks the same way, one step to the right of the last."""
    guess = torch.zeros_like(truth)
    guess[..., :3] = torch.eye(3, dtype=truth.dtype, device=truth.device)
    guess[..., 0, 3] = -torch.arange(truth.shape[-3], dtype=truth.dtype, device=truth.device)
    return guess


def accuracy_curve(
    errors_deg: Tensor,  # [N] ≥ 0, degrees
    limit: int = 30,
) -> Tensor:
    """Share of the errors below 1°, 2°, …, ``limit``°: [limit]; AUC@limit is its mean."""
    steps = torch.arange(1, limit + 1, device=errors_deg.device, dtype=errors_deg.dtype)
    return (errors_deg.reshape(-1, 1) < steps).to(torch.float64).mean(0)


class PoseAccuracy(Metric):
    """AUC@30 and RRA, RTA at 5°, 15°, 30°, in percent, over the pairs of all scenes seen.

    A pair whose baseline is too short to have a direction is scored by its rotation alone, left
    out of RTA, and counted.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self, limit: int = 30, **options: Any) -> None:
        """Args:
        limit: degrees up to which the area is taken.
        options: torchmetrics'.
        """
        super().__init__(**options)
        self.limit = limit
        zero = torch.zeros((), dtype=torch.float64)
        self.curve: Tensor
        self.rotations: Tensor
        self.translations: Tensor
        self.pairs: Tensor
        self.moved: Tensor
        for name, start in (
            ("curve", torch.zeros(limit, dtype=torch.float64)),
            ("rotations", torch.zeros(len(LIMITS_DEG), dtype=torch.float64)),
            ("translations", torch.zeros(len(LIMITS_DEG), dtype=torch.float64)),
            ("pairs", zero),
            ("moved", zero.clone()),
        ):
            self.add_state(name, start, dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,  # [B, V, 3, 4] camera_from_world
        truth: Tensor,  # [B, V, 3, 4] camera_from_world
        least_baseline: Tensor | None = None,  # [B] shortest baseline with a direction; any if None
    ) -> None:
        """Add scenes of one number of views."""
        rotation, translation = pair_errors_deg(predicted.double(), truth.double())
        baseline = baselines(truth.double())
        moved = baseline > 0
        if least_baseline is not None:
            moved &= baseline >= least_baseline[:, None]
        worst = torch.maximum(rotation, torch.where(moved, translation, 0))
        self.curve += accuracy_curve(worst, self.limit) * worst.numel()
        limits = torch.tensor(LIMITS_DEG, dtype=rotation.dtype).to(rotation.device)
        self.rotations += (rotation[..., None] < limits).sum((0, 1))
        self.translations += ((translation[..., None] < limits) & moved[..., None]).sum((0, 1))
        self.pairs += worst.numel()
        self.moved += moved.sum()

    def compute(self) -> dict[str, Tensor]:
        """``auc@30``, ``rra@5`` …, ``rta@30`` in percent, and ``still``: pairs without motion (of
        nothing else, RTA is nan)."""
        pairs, moved = self.pairs.clamp(min=1), self.moved
        found = {f"auc@{self.limit}": 100 * self.curve.mean() / pairs}
        for n, limit in enumerate(LIMITS_DEG):
            found[f"rra@{limit}"] = 100 * self.rotations[n] / pairs
            found[f"rta@{limit}"] = 100 * self.translations[n] / moved  # 0 / 0 is nan
        found["still"] = self.pairs - self.moved
        return found
