"""Nearest neighbours of millions of points with torch alone, on whatever device they lie.

A balanced tree: points are halved along the widest side of their box until 32 are left. All
queries walk down together, nearer box first, each with a stack of its own; a box that is farther
than the best found so far is not opened. The answer is exact, as a table of all distances is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAF = 32
"""Points a leaf."""
BLOCK = 1 << 26
"""Distances to points of leaves that are held at once on a GPU, where 2^24 took up to twice as
long, or as many as its free memory has room for; a quarter of it on a CPU."""
ROOM = 100
"""Bytes each, with what is worked on beside them."""


class BoxTree:
    """The points of a cloud in a tree of boxes."""

    def __init__(
        self,
        points: Tensor,  # [N, 3] finite
    ) -> None:
        count = len(points)
        self.depth = max(0, math.ceil(math.log2(count / LEAF)))
        width = -(-count // (1 << self.depth))
        spare = (width << self.depth) - count
        # Places that hold nothing lie at infinity: they sort last, and no box has them.
        rows = torch.cat([points, points.new_full((spare, 3), torch.inf)])[None]
        index = torch.arange(count + spare, device=points.device)[None]
        boxes = [_boxes(rows)]
        for _ in range(self.depth):
            low, high = boxes[-1].unbind(1)
            axis = (high - low).nan_to_num(nan=-1.0, neginf=-1.0).argmax(-1)  # [nodes]
            along = rows.gather(2, axis[:, None, None].expand(-1, rows.shape[1], 1))[..., 0]
            order = along.argsort(dim=1, stable=True)
            rows = rows.gather(1, order[..., None].expand(-1, -1, 3))
            index = index.gather(1, order)
            half = rows.shape[1] // 2
            rows = rows.reshape(-1, half, 3)
            index = index.reshape(-1, half)
            boxes.append(_boxes(rows))
        self.points, self.index = rows, index.clamp(max=count - 1)
        """[leaves, width, 3] and the places of these points in the cloud."""
        self.boxes = torch.cat(boxes)
        """[nodes, 2, 3] low and high corners; the children of node n are 2n + 1 and 2n + 2."""

    def nearest(
        self,
        queries: Tensor,  # [M, 3]
        count: int,
        limit: float = math.inf,
    ) -> tuple[Tensor, Tensor]:
        """Distances and indices [M, count], nearest first; inf at ``limit`` and beyond, where
        the index means nothing."""
        held = BLOCK // 4
        if queries.is_cuda:
            held = min(BLOCK, torch.cuda.mem_get_info(queries.device)[0] // ROOM)
        rows = max(1, held // self.points.shape[1])
        found = [self._walk(block, count, limit) for block in queries.split(rows)]
        distance, index = (torch.cat(parts) for parts in zip(*found, strict=True))
        return distance, index

    def _walk(self, queries: Tensor, count: int, limit: float) -> tuple[Tensor, Tensor]:
        """One block of queries; squares of distances until the end."""
        many, first_leaf = len(queries), (1 << self.depth) - 1
        best = queries.new_full((many, count), torch.inf)
        where = torch.zeros(many, count, dtype=torch.long, device=queries.device)
        nodes = torch.zeros(many, self.depth + 2, dtype=torch.long, device=queries.device)
        far = queries.new_zeros(many, self.depth + 2)
        height = torch.ones(many, dtype=torch.long, device=queries.device)
        bound = limit * limit
        going = torch.arange(many, device=queries.device)
        while len(going):
            height[going] -= 1
            top = height[going]
            node, near = nodes[going, top], far[going, top]
            worst = best[going, -1].clamp(max=bound)
            opened = near < worst
            at_leaf = opened & (node >= first_leaf)
            rows = going[at_leaf]
            if len(rows):
                leaf = node[at_leaf] - first_leaf
                apart = (queries[rows, None] - self.points[leaf]).square().sum(-1)
                every = torch.cat([best[rows], apart], dim=1)
                place = torch.cat([where[rows], self.index[leaf]], dim=1)
                chosen = every.topk(count, dim=1, largest=False, sorted=True)
                best[rows], where[rows] = chosen.values, place.gather(1, chosen.indices)
            inside = opened & (node < first_leaf)
            rows = going[inside]
            if len(rows):
                self._push(queries, rows, node[inside], worst[inside], (nodes, far, height))
            going = going[height[going] > 0]
        best = best.sqrt()
        return torch.where(best < limit, best, torch.inf), where

    def _push(
        self,
        queries: Tensor,
        rows: Tensor,  # [A]
        node: Tensor,  # [A]
        worst: Tensor,  # [A]
        stacks: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Put the children of each row's node on its stack, the nearer one on top."""
        nodes, far, height = stacks
        children = 2 * node[:, None] + torch.tensor([1, 2], device=node.device)  # [A, 2]
        low, high = self.boxes[children].unbind(2)  # [A, 2, 3]
        place = queries[rows, None]
        outside = torch.maximum(low - place, place - high).clamp(min=0)
        away = outside.square().sum(-1)
        away, order = away.sort(dim=1, descending=True)
        children = children.gather(1, order)
        for n in range(2):
            wanted = away[:, n] < worst
            owner = rows[wanted]
            nodes[owner, height[owner]] = children[wanted, n]
            far[owner, height[owner]] = away[wanted, n]
            height[owner] += 1


def _boxes(rows: Tensor) -> Tensor:
    """[nodes, 2, 3] of [nodes, N, 3]; an empty box is turned inside out, infinitely far away."""
    low = rows.amin(1)
    high = torch.where(rows.isfinite(), rows, -torch.inf).amax(1)
    return torch.stack([low, high], dim=1)
