"""How far a predicted cloud is from the true one (point maps, as in arXiv 2602.23361).

Distances go both ways: accuracy from the prediction to the truth, completeness back; CD is the
mean of the two, NC the mean |cos| between the normals of matched points, both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggt3 import checks
from vggt3.geometry.alignment import Similarity, umeyama
from vggt3.metrics.medians import median
from vggt3.metrics.neighbours import Neighbours, Way

NORMAL_NEIGHBOURS = 30
BLOCK = 1 << 18
"""Points whose 30 neighbours are held at once."""
ICP_ITERATIONS, ICP_CHANGE = 30, 1e-6
"""ICP ends when fitness and rmse both change by less than this share of themselves."""


class Surface:
    """A cloud with its neighbours and, once asked for, its normals."""

    def __init__(
        self,
        points: Tensor,  # [N, 3]
        way: Way = "auto",
    ) -> None:
        self.points = points
        self.neighbours = Neighbours(points, way)

    @cached_property
    def normals(self) -> Tensor:
        """[N, 3] unit, sign arbitrary: the direction in which each point's 30 nearest (itself
        among them) vary least."""
        return torch.cat([self._directions(block) for block in self.points.split(BLOCK)])

    def _directions(self, points: Tensor) -> Tensor:
        _, index = self.neighbours.nearest(points, NORMAL_NEIGHBOURS)
        patch = self.points[index]  # [N, K, 3]
        patch = patch - patch.mean(1, keepdim=True)
        return torch.linalg.eigh(patch.transpose(1, 2) @ patch).eigenvectors[..., 0]


@dataclass(frozen=True)
class CloudErrors:
    """One scene's scores, in the truth's units."""

    accuracy: float
    """Mean distance from a predicted point to the nearest true one."""
    completeness: float
    """Mean distance from a true point to the nearest predicted one."""
    accuracy_median: float
    completeness_median: float
    normals: float
    """Mean |cos| between the normals of matched points: [0, 1], more is better."""

    @property
    def chamfer(self) -> float:
        """CD: the mean of accuracy and completeness."""
        return (self.accuracy + self.completeness) / 2


def icp(
    source: Tensor,  # [N, 3]
    target: Neighbours,
    limit: float,
) -> Similarity:
    """Point-to-point ICP from the identity: the rigid motion that takes source onto target.

    Each round matches every point to its nearest one, forgets pairs ``limit`` (the
    truth's units) or more apart and fits the rest in closed form. Fewer than three pairs, or
    pairs on one line, leave what was found so far.
    """
    found = Similarity(*(x.to(source) for x in (torch.ones(()), torch.eye(3), torch.zeros(3))))
    fitness = rmse = -1.0
    for _ in range(ICP_ITERATIONS):
        moved = found.apply(source)
        distance, index = (x[:, 0] for x in target.nearest(moved, limit=limit))
        close = distance.isfinite()
        if int(close.sum()) < 3:
            return found
        last = fitness, rmse
        fitness = float(close.double().mean())
        rmse = float(distance[close].square().mean().sqrt())
        if _settled(last[0], fitness) and _settled(last[1], rmse):
            return found
        try:
            found = umeyama(source[close], target.points[index[close]], with_scale=False)
        except checks.DataError:
            return found
    return found


def _settled(last: float, now: float) -> bool:
    return abs(now - last) <= ICP_CHANGE * abs(now)


def cloud_errors(predicted: Surface, truth: Surface) -> CloudErrors:
    """Errors of an aligned cloud."""
    there, matched = (x[:, 0] for x in truth.neighbours.nearest(predicted.points))
    back, returned = (x[:, 0] for x in predicted.neighbours.nearest(truth.points))
    agree = [
        (predicted.normals * truth.normals[matched]).sum(-1).abs().mean(),
        (truth.normals * predicted.normals[returned]).sum(-1).abs().mean(),
    ]
    return CloudErrors(
        accuracy=float(there.mean()),
        completeness=float(back.mean()),
        accuracy_median=median(there),
        completeness_median=median(back),
        normals=float(agree[0] + agree[1]) / 2,
    )


class CloudAccuracy(Metric):
    """CD, its two parts and NC: plain means over the scenes seen."""

    higher_is_better = False
    full_state_update = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.total: Tensor
        self.scenes: Tensor
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("total", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("scenes", zero, dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,  # [N, 3] aligned to the truth
        truth: Tensor,  # [M, 3]
    ) -> None:
        """Add one scene."""
        found = cloud_errors(Surface(predicted), Surface(truth))
        self.total += self.total.new_tensor([found.accuracy, found.completeness, found.normals])
        self.scenes += 1

    def compute(self) -> dict[str, Tensor]:
        """``accuracy``, ``completeness`` and ``cd`` in the truth's units, and ``nc``."""
        accuracy, completeness, normals = self.total / self.scenes.clamp(min=1)
        cd = (accuracy + completeness) / 2
        return {"accuracy": accuracy, "completeness": completeness, "cd": cd, "nc": normals}
