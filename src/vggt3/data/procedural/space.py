"""The free space of a drawn scene, coarsely: what cameras must keep clear of, what they see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggt3.data.procedural.build import SolidArrays
from vggt3.data.procedural.scene import BALL, CYLINDER, SHELL

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """The used solids of one scene, K of them."""

    affine: Array
    """[K, 3, 4] unit shape from world."""
    half: Array
    """[K, 3] metres."""
    kinds: NDArray[np.int64]
    """[K]"""

    @classmethod
    def of(cls, solids: SolidArrays) -> Space:
        """The space that these solids leave."""
        used = solids.used
        return cls(solids.local_from_world[used], solids.half[used], solids.kinds[used])

    def _local(self, vectors: Array, *, shift: bool) -> list[Array]:
        """Components, each [K, N], of vectors [N, 3] in the unit spaces."""
        parts = []
        for axis in range(3):
            part = self.affine[:, axis, :3] @ vectors.T
            parts.append(part + self.affine[:, axis, 3:] if shift else part)
        return parts

    def clearance(
        self,
        points: Array,  # [N, 3]
    ) -> Array:
        """Distance [N] in metres (roughly) to the nearest solid or wall; negative inside one."""
        x, y, z = self._local(points, shift=True)
        half = self.half.T[:, :, None]  # [3, K, 1]
        outside = [(np.abs(c) - 1) * h for c, h in zip((x, y, z), half, strict=True)]
        distance = np.maximum(np.maximum(outside[0], outside[1]), outside[2])  # [K, N]
        ball, cylinder = self.kinds == BALL, self.kinds == CYLINDER
        length = np.sqrt(x[ball] ** 2 + y[ball] ** 2 + z[ball] ** 2)
        distance[ball] = (length - 1) * self.half[ball].min(1)[:, None]
        around = np.hypot(x[cylinder], y[cylinder]) - 1
        around *= self.half[cylinder, :2].min(1)[:, None]
        distance[cylinder] = np.maximum(around, outside[2][cylinder])
        shells = self.kinds == SHELL
        walls = -distance[shells].min(0)
        solids = distance[~shells].min(0, initial=np.inf)
        return np.asarray(np.minimum(walls, solids))

    def depths(
        self,
        origins: Array,  # [N, 3]
        directions: Array,  # [N, R, 3] unit
    ) -> Array:
        """Distance [N, R] to the first surface along each direction."""
        count, fan = directions.shape[:2]
        o = [c.repeat(fan, 1) for c in self._local(origins, shift=True)]  # [K, N·R]
        d = self._local(directions.reshape(-1, 3), shift=False)
        with np.errstate(all="ignore"):
            inverse = [1 / c for c in d]
            middle = [-a * b for a, b in zip(o, inverse, strict=True)]
            low = [m - np.abs(i) for m, i in zip(middle, inverse, strict=True)]
            high = [m + np.abs(i) for m, i in zip(middle, inverse, strict=True)]
            near = np.maximum(np.maximum(low[0], low[1]), low[2])
            far = np.minimum(np.minimum(high[0], high[1]), high[2])
            for kind, axes in ((BALL, 3), (CYLINDER, 2)):
                some = self.kinds == kind
                first, last = _round([c[some] for c in o[:axes]], [c[some] for c in d[:axes]])
                if kind == CYLINDER:
                    first = np.maximum(first, low[2][some])
                    last = np.minimum(last, high[2][some])
                near[some], far[some] = first, last
            shells = self.kinds == SHELL
            hit = (near < far) & (near > 0) & ~shells[:, None]
            solid = np.where(hit, near, np.inf).min(0)
        nearest = np.minimum(solid, _leave(near[shells], far[shells]))
        return np.asarray(nearest).reshape(count, fan)


def _round(origin: list[Array], direction: list[Array]) -> tuple[Array, Array]:
    """Where lines enter and leave unit circles or balls; NaN for a miss."""
    a = sum(np.square(d) for d in direction)
    centre = -sum(o * d for o, d in zip(origin, direction, strict=True)) / a
    nearest = sum(np.square(o + centre * d) for o, d in zip(origin, direction, strict=True))
    chord = np.sqrt((1 - nearest) / a)
    return centre - chord, centre + chord


def _leave(near: Array, far: Array) -> Array:
    end = np.zeros(near.shape[1])
    for _ in near:
        for low, high in zip(near, far, strict=True):
            end = np.where((low <= end + 1e-4) & (high > end), high, end)
    return end
