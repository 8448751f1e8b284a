"""Least-squares alignment of corresponding points: Sim(3) and SE(3) in closed form.

Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
PAMI 1991, with optional weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3 import checks

DEGENERATE = 1e-12
"""Second over first singular value of the covariance below which points are on one line."""
STILL = 1e-9
"""Spread of points, over their distance from the origin, below which they are in one place."""


@dataclass(frozen=True)
class Similarity:
    """x ↦ scale · rotation · x + translation, from the source frame to the target frame."""

    scale: Tensor
    """[...] target units per source unit; 1 for a rigid motion."""
    rotation: Tensor
    """[..., 3, 3]"""
    translation: Tensor
    """[..., 3] in target units."""

    def apply(
        self,
        points: Tensor,  # [..., N, 3] source frame
    ) -> Tensor:
        """The points [..., N, 3] in the target frame, in the points' dtype and device."""
        rotation = self.rotation.to(points)
        moved = points @ rotation.transpose(-1, -2)
        scale = self.scale.to(points)[..., None, None]
        return scale * moved + self.translation.to(points)[..., None, :]

    def apply_to_cameras(
        self,
        camera_from_world: Tensor,  # [..., V, 3, 4] world = source frame
    ) -> Tensor:
        """camera_from_world [..., V, 3, 4] with the world in the target frame and units."""
        rotation = self.rotation.to(camera_from_world)[..., None, :, :]
        scale = self.scale.to(camera_from_world)[..., None, None, None]
        shift = self.translation.to(camera_from_world)[..., None, :, None]
        turned = camera_from_world[..., :3] @ rotation.transpose(-1, -2)
        return torch.cat([turned, scale * camera_from_world[..., 3:] - turned @ shift], dim=-1)


def umeyama(
    source: Tensor,  # [..., N, 3]
    target: Tensor,  # [..., N, 3]
    weights: Tensor | None = None,  # [..., N] ≥ 0
    *,
    with_scale: bool = True,
) -> Similarity:
    """The similarity (rigid motion if not ``with_scale``) that takes source closest to target.

    Minimises Σ w·‖target − (s·R·source + t)‖² over each leading index; computes and returns
    float64. Raises :class:`~vggt3.checks.DataError` where fewer than three points have weight
    or all lie on one line, since a rotation is then not determined.
    """
    _check(source, target, weights)
    source, target = _double(source), _double(target)
    weights = source.new_ones(source.shape[:-1]) if weights is None else _double(weights)
    share = weights / weights.sum(-1, keepdim=True)
    source_mean = (share[..., None] * source).sum(-2, keepdim=True)
    target_mean = (share[..., None] * target).sum(-2, keepdim=True)
    source_centred, target_centred = source - source_mean, target - target_mean
    covariance = (share[..., None] * target_centred).transpose(-1, -2) @ source_centred

    left, singular, right = torch.linalg.svd(covariance)
    flat = singular[..., 1] <= DEGENERATE * singular[..., 0]
    for centred, mean in ((source_centred, source_mean), (target_centred, target_mean)):
        # What is left of points in one place is rounding, which points anywhere.
        spread = (share * (centred * centred).sum(-1)).sum(-1).sqrt()
        flat = flat | (spread <= STILL * mean.norm(dim=-1).squeeze(-1))
    checks.require(
        not bool(flat.any()),
        "points to align",
        "not all lie on one line or in one place",
        f"{int(flat.sum())} of {flat.numel()} sets that do",
        error=checks.DataError,
    )
    signs = torch.ones_like(singular)
    signs[..., 2] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = (left * signs[..., None, :]) @ right
    scale = torch.ones_like(singular[..., 0])
    if with_scale:
        variance = (share * (source_centred * source_centred).sum(-1)).sum(-1)
        scale = (singular * signs).sum(-1) / variance
    moved = scale[..., None] * (rotation @ source_mean.transpose(-1, -2)).squeeze(-1)
    return Similarity(scale, rotation, target_mean.squeeze(-2) - moved)


def _check(source: Tensor, target: Tensor, weights: Tensor | None) -> None:
    checks.require(
        source.dim() >= 2 and source.shape[-1] == 3 and source.shape == target.shape,
        "source and target",
        "have one shape [..., N, 3]",
        f"{list(source.shape)} and {list(target.shape)}",
    )
    for name, points in (("source", source), ("target", target)):
        checks.require(
            bool(torch.isfinite(points).all()),
            f"{name} points",
            "be finite",
            "inf or nan",
            error=checks.DataError,
        )
    counts = torch.tensor(source.shape[-2])
    if weights is not None:
        checks.require(
            weights.shape == source.shape[:-1],
            "weights",
            f"have shape {list(source.shape[:-1])}",
            list(weights.shape),
        )
        checks.require(bool((weights >= 0).all()), "weights", "be ≥ 0", "negative or nan values")
        counts = (weights > 0).sum(-1)
    checks.require(
        counts.numel() > 0 and int(counts.min()) >= 3,
        "points to align",
        "number at least 3",
        int(counts.min()) if counts.numel() else 0,
        error=checks.DataError,
    )


def _double(tensor: Tensor) -> Tensor:
    try:
        return tensor.double()
    except TypeError:
        # MPS has no float64; the result is a handful of numbers, so the host computes it.
        return tensor.cpu().double()
