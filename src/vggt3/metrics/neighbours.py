"""Nearest neighbours in a cloud: scipy's k-d tree on a CPU; elsewhere all distances of a small
cloud, a tree of boxes of a large one."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.metrics.box_tree import BoxTree

Way = Literal["auto", "tree", "distances", "boxes"]
BLOCK = 1 << 25
"""Distances held at once."""
LARGE = 1 << 16
"""Points from which a tree of boxes is faster than all distances on a GPU."""


class Neighbours:
    """The points of a cloud, asked for those nearest to any place. Exact every way."""

    def __init__(
        self,
        points: Tensor,  # [N, 3]
        way: Way = "auto",
    ) -> None:
        """``way``: tree needs scipy and the CPU; auto takes it where it can, else distances below
        65,536 points, else boxes."""
        shape = checks.shape_of("points", tuple(points.shape), "N 3")
        checks.require(shape["N"] > 0, "points", "be at least one", 0, error=checks.DataError)
        self.points = points
        self._tree: Any = None
        self._boxes: BoxTree | None = None
        if way in ("auto", "tree") and points.device.type == "cpu":
            self._tree = _tree(points, needed=way == "tree")
        if way == "boxes" or (way == "auto" and self._tree is None and shape["N"] >= LARGE):
            self._boxes = BoxTree(points)

    def nearest(
        self,
        queries: Tensor,  # [M, 3]
        count: int = 1,
        limit: float = math.inf,
    ) -> tuple[Tensor, Tensor]:
        """Distances and indices, [M, K] each and nearest first; K = min(count, N).

        At ``limit`` or further nothing is looked for: distance inf, and an index of no meaning.
        """
        count = min(count, len(self.points))
        if self._tree is not None:
            distance, index = self._tree.query(
                queries.numpy(),
                k=range(1, count + 1),
                distance_upper_bound=limit,
                workers=torch.get_num_threads(),
            )
            return torch.from_numpy(distance).to(queries.dtype), torch.from_numpy(index)
        if self._boxes is not None:
            return self._boxes.nearest(queries, count, limit)
        rows = max(1, BLOCK // len(self.points))
        found = [_closest(block, self.points, count) for block in queries.split(rows)]
        near, index = (torch.cat(parts) for parts in zip(*found, strict=True))
        return torch.where(near < limit, near, torch.inf), index


def _tree(points: Tensor, needed: bool) -> Any:
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        if needed:
            raise
        return None
    # Split in the middle, not at the median: surfaces are found twice as fast.
    return cKDTree(points.numpy(), leafsize=16, balanced_tree=False, compact_nodes=False)


def _closest(queries: Tensor, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    # Differences, not products: |a|² + |b|² − 2ab loses the digits of small distances.
    every = torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")
    if count == 1:
        nearest = every.min(dim=1, keepdim=True)
        return nearest.values, nearest.indices
    several = every.topk(count, dim=1, largest=False, sorted=True)
    return several.values, several.indices
