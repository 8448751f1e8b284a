"""What training minimises, as VGGT has it: pure functions, unreduced first.

Every term is a local sum over a count that is summed over the ranks sharing a scene, so the sum
of the ranks' losses is the loss of one process, and so are its gradients.

Our choices where nothing is published: the pose's L1 is the mean over each part's components;
the depth gradient is taken on the map sampled at each stride and averaged over the strides;
both local terms are means over their own valid neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.distributed import ALONE, World
from vggt3.geometry.camera import encode_pose
from vggt3.geometry.projection import unproject

STAGE_DECAY = 0.6
STRIDES = (1, 2, 4, 8)
NORMAL_FLOOR = 0.03
"""Share of the true patch's area under which a predicted patch has no direction: bounds the
gradient where a young model puts neighbours into one place."""
ASTRAY = 10.0
"""Times the true patch's sides beyond which a predicted one has no normal to learn from: with two
sides along one line, as bf16 often makes them, its gradient grows with their square. Points of 10⁹
had one of 10¹⁵, and clipping made the batch's step about them; the points' own term calls them
back."""


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts."""

    camera: float = 5.0
    """Poses: L1 on the 9-vector after each refinement."""
    depth: float = 1.0
    """Depth, weighted by the predicted confidence."""
    depth_gradient: float = 1.0
    """Differences of the depth error between neighbours; multiplied by ``depth``."""
    points: float = 1.0
    """World points, weighted by the predicted confidence."""
    normals: float = 1.0
    """1 − cos between normals of the point maps; multiplied by ``points``."""
    focal: float = 0.5
    """The field of view's share within the pose, beside translation 1 and rotation 1."""
    confidence: float = 0.2
    """α in c·‖r‖ − α·log c."""
    dropped: float = 0.02
    """Share of each view's worst residuals that is left out."""
    tail: float = 0.0
    """Residuals of depth and points beyond this, in the scene's mean point distance, count by
    their logarithm, so that no pixel's gradient grows with its prediction's exponential; 0 is
    never. Not in the paper."""
    sky: float = 0.0
    """Logarithm of both confidences where the truth has no depth, so that a cloud can leave skies
    out; only for scenes whose every surface has depth, as drawn ones have. Not in the paper."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            told = "be at least 0, and finite"
            checks.require(0 <= value < math.inf, f"--loss.{field.name}", told, value)
        checks.require(self.dropped < 1, "--loss.dropped", "be below 1", self.dropped)


@dataclass(frozen=True)
class Targets:
    """The truth about the views held here, in units of the scene's mean point distance."""

    pose: Tensor
    """[B, V, 9] translation, quaternion xyzw with w ≥ 0, field of view height and width."""
    depth: Tensor
    """[B, V, H, W] along z"""
    points: Tensor
    """[B, V, H, W, 3] in the first camera's frame"""
    valid: Tensor
    """[B, V, H, W] bool: depth is known (not in the sky)"""
    scale: Tensor
    """[B] the scene's own units per unit here"""


def normalised_targets(
    camera_from_world: Tensor,  # [B, V, 3, 4] world = first camera of the scene
    intrinsics: Tensor,  # [B, V, 3, 3] pixels
    depth: Tensor,  # [B, V, H, W]
    valid: Tensor,  # [B, V, H, W] bool
    pixel_offset: float,
    world: World = ALONE,
) -> Targets:
    """Divide lengths by the mean distance of the scene's points from the first camera.

    ``pixel_offset`` is where the ray of a pixel of ``depth`` passes through it.
    """
    points = unproject(depth, intrinsics, camera_from_world, pixel_offset)
    distance = torch.linalg.vector_norm(points, dim=-1)
    sums = torch.stack(
        [
            torch.where(valid, distance, 0).sum((1, 2, 3)),
            valid.sum((1, 2, 3)).to(distance.dtype),
        ]
    )
    total, count = world.sum(sums)
    # A scene of nothing but sky keeps its units.
    scale = torch.where(count > 0, total / count.clamp(min=1), 1.0).clamp(min=1e-6)
    pose = encode_pose(camera_from_world, intrinsics, (depth.shape[-2], depth.shape[-1]))
    pose = torch.cat([pose[..., :3] / scale[:, None, None], pose[..., 3:]], dim=-1)
    per_pixel = scale[:, None, None, None]
    return Targets(pose, depth / per_pixel, points / per_pixel[..., None], valid, scale)


def pose_error(
    predicted: Tensor,  # [..., 9]
    target: Tensor,  # [..., 9]
    focal: float = 0.5,
) -> Tensor:
    """|Δ| of translation + rotation + focal · field of view, each its components' mean: [...]."""
    error = (predicted - target).abs()
    translation, rotation, view = error.split([3, 4, 2], dim=-1)
    return translation.mean(-1) + rotation.mean(-1) + focal * view.mean(-1)


def staged_pose_error(
    stages: Sequence[Tensor],  # [B, V, 9] after each refinement
    target: Tensor,  # [B, V, 9]
    focal: float = 0.5,
) -> Tensor:
    """Σ over stages i of 0.6^(last − i) · :func:`pose_error`: [B, V]."""
    last = len(stages) - 1
    weighted = [
        STAGE_DECAY ** (last - i) * pose_error(stage, target, focal)
        for i, stage in enumerate(stages)
    ]
    return torch.stack(weighted).sum(0)


def tailed(
    residual: Tensor,  # [...] of either sign
    limit: float,
) -> Tensor:
    """``residual`` up to ±``limit``, from there ±limit·(1 + log(|r|/limit)); all of it for 0.

    Maps are exponentials of what a head gives (sign(x)·expm1|x|), and so are their gradients: one
    pixel gone astray would outweigh a batch. Here its gradient by x tends to ``limit``.
    """
    if limit <= 0:
        return residual
    size = residual.abs()
    beyond = residual.sign() * limit * (1 + (size.clamp(min=limit) / limit).log())
    return torch.where(size > limit, beyond, residual)


def confident_error(
    residual: Tensor,  # [...] ‖r‖ ≥ 0
    confidence: Tensor,  # [...] ≥ 1
    alpha: float = 0.2,
) -> Tensor:
    """c·‖r‖ − α·log c: confidence costs where the residual is large, and is worth α·log c."""
    return confidence * residual - alpha * confidence.log()


def without_worst(
    residual: Tensor,  # [..., H, W] ‖r‖ ≥ 0
    valid: Tensor,  # [..., H, W] bool
    dropped: float = 0.02,
) -> Tensor:
    """``valid`` less each map's ⌊dropped · n⌋ largest residuals (ties at the limit stay): bool.

    Sorts whole maps and looks nothing up on the host, so an accelerator is never waited for.
    """
    if dropped <= 0:
        return valid
    last = torch.where(valid, residual.detach(), torch.inf).flatten(-2).sort(dim=-1).values
    count = valid.flatten(-2).sum(-1, keepdim=True)
    kept = count - (count * dropped).floor().to(count.dtype)
    limit = last.gather(-1, (kept - 1).clamp(min=0))  # [..., 1]
    return valid & (residual.detach() <= limit[..., None])


def gradient_errors(
    residual: Tensor,  # [..., H, W] predicted − true
    valid: Tensor,  # [..., H, W] bool
    strides: Iterable[int] = STRIDES,
) -> list[tuple[Tensor, Tensor]]:
    """|∂x r| and |∂y r| between neighbours of the map sampled at each stride.

    One (error, both valid) pair a direction and stride, x before y.
    """
    pairs = []
    for stride in strides:
        r, known = residual[..., ::stride, ::stride], valid[..., ::stride, ::stride]
        pairs.append(
            ((r[..., :, 1:] - r[..., :, :-1]).abs(), known[..., :, 1:] & known[..., :, :-1])
        )
        pairs.append(
            ((r[..., 1:, :] - r[..., :-1, :]).abs(), known[..., 1:, :] & known[..., :-1, :])
        )
    return pairs


def normal_error(
    predicted: Tensor,  # [..., H, W, 3]
    target: Tensor,  # [..., H, W, 3]
    valid: Tensor,  # [..., H, W] bool
) -> tuple[Tensor, Tensor]:
    """1 − cos between normals of two point maps, and where it is known: [..., H−1, W−1].

    A normal is the cross product of the steps to the right and to the lower neighbour. It is not
    known where the predicted steps are beyond :data:`ASTRAY` times the true ones.
    """
    ours, theirs = _steps(predicted), _steps(target)
    near = _size(ours).detach() <= ASTRAY**2 * _size(theirs)
    ours = torch.where(near[..., None, None], ours, 0)
    found, wanted = (torch.linalg.cross(x[..., 0, :], x[..., 1, :]) for x in (ours, theirs))
    area = wanted.square().sum(-1).clamp(min=torch.finfo(wanted.dtype).tiny ** 0.5)
    length = (found.square().sum(-1) + NORMAL_FLOOR**2 * area).sqrt()
    known = valid[..., :-1, :-1] & valid[..., :-1, 1:] & valid[..., 1:, :-1] & near
    return 1 - (found * wanted).sum(-1) / (length * area.sqrt()), known


def _steps(points: Tensor) -> Tensor:
    """To the right and to the lower neighbour: [..., H−1, W−1, 2, 3]."""
    corner = points[..., :-1, :-1, :]
    sides = points[..., :-1, 1:, :] - corner, points[..., 1:, :-1, :] - corner
    return torch.stack(sides, dim=-2)


def _size(steps: Tensor) -> Tensor:
    return steps.square().sum(dim=(-2, -1))


def share_of_mean(
    errors: Sequence[tuple[Tensor, Tensor]],  # (error, counts) of one shape each
    world: World = ALONE,
) -> Tensor:
    """This rank's sum of the errors that count over the number that count on all ranks."""
    total = torch.stack([torch.where(mask, error, 0).sum() for error, mask in errors]).sum()
    count = torch.stack([mask.sum() for _, mask in errors]).sum()
    return total / world.sum(count.to(total.dtype)).clamp(min=1)


def dense_terms(
    depth: Tensor,  # [B, V, H, W]
    depth_confidence: Tensor,  # [B, V, H, W] ≥ 1
    points: Tensor,  # [B, V, H, W, 3]
    points_confidence: Tensor,  # [B, V, H, W] ≥ 1
    target: Targets,
    weights: LossWeights,
    world: World = ALONE,
) -> dict[str, Tensor]:
    """The terms of depth and points of the views held here, unweighted scalars."""
    difference, known = tailed(depth - target.depth, weights.tail), target.valid
    far = tailed(torch.linalg.vector_norm(points - target.points, dim=-1), weights.tail)
    terms = {}
    for name, residual, confidence in (
        ("depth", difference.abs(), depth_confidence),
        ("points", far, points_confidence),
    ):
        kept = without_worst(residual, known, weights.dropped)
        error = confident_error(residual, confidence, weights.confidence)
        terms[name] = share_of_mean([(error, kept)], world)
    if weights.depth_gradient:
        pairs = gradient_errors(difference, known)
        # A stride's x and y neighbours share one mean, their sum is |∂x r| + |∂y r| : twice it.
        means = [share_of_mean(pairs[n : n + 2], world) for n in range(0, len(pairs), 2)]
        terms["depth_gradient"] = 2 * torch.stack(means).mean()
    if weights.normals:
        terms["normals"] = share_of_mean([normal_error(points, target.points, known)], world)
    if weights.sky:
        sure = depth_confidence.log() + points_confidence.log()
        all_of_them = torch.ones_like(known)
        terms["sky"] = share_of_mean([(torch.where(known, 0, sure), all_of_them)], world)
    return terms


def camera_term(
    stages: Sequence[Tensor],  # [B, V, 9] of the views held here
    target: Targets,
    weights: LossWeights,
    world: World = ALONE,
) -> Tensor:
    """The staged pose error, averaged over all ranks' views."""
    error = staged_pose_error(stages, target.pose, weights.focal)
    return share_of_mean([(error, torch.ones_like(error, dtype=torch.bool))], world)


def total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of ``camera``, ``depth``, ``depth_gradient``, ``points``, ``normals``,
    ``sky``."""
    factors = {
        "camera": weights.camera,
        "depth": weights.depth,
        "depth_gradient": weights.depth * weights.depth_gradient,
        "points": weights.points,
        "normals": weights.points * weights.normals,
        "sky": weights.sky,
    }
    return torch.stack([factors[name] * term for name, term in terms.items()]).sum()
