"""A cloud of bounded size out of any number of views."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggt3 import checks
from vggt3.types import DenseView


@dataclass(frozen=True)
class Cloud:
    """N coloured points."""

    xyz: Tensor
    """[N, 3] float32, world frame, scene units."""
    rgb: Tensor
    """[N, 3] uint8."""
    origin: Tensor | None = None
    """[N, 2] int64: the view that each point came from, and its pixel there, row by row."""

    def __len__(self) -> int:
        return self.xyz.shape[0]


def check_sampling(max_points: int, confidence_percentile: float, seed: int) -> None:
    """UsageError unless these can be asked of a :class:`SampledCloud`."""
    checks.require(max_points >= 1, "--max-points", "be at least 1", max_points)
    checks.require(
        0 <= confidence_percentile < 100,
        "--confidence-percentile",
        "be at least 0 and below 100",
        confidence_percentile,
    )
    checks.require(seed >= 0, "--points-seed", "be at least 0", seed)


_ROW = np.dtype(
    [
        ("lot", "<f8"),  # drawn in [0, 1); the least are kept
        ("place", "<i8"),  # view index · 2³² + pixel
        ("confidence", "<f4"),
        ("xyz", "<f4", (3,)),
        ("rgb", "u1", (3,)),
    ]
)

SPARE_LOTS = 1.25
"""Pixels drawn for one candidate wanted, where the number of pixels is known: some points are
not finite, and lots are never spread quite evenly."""

_MOST_SPARE = 4
"""Candidates held for one point wanted, at most: memory stays bounded as the percentile → 100."""


class SampledCloud:
    """Collects points view by view and gives back at most ``max_points`` of the surest.

    Every pixel draws a lot from (``seed``, view index, pixel), so the result depends neither on
    the order in which views come nor on how often the sample was thinned. Of all finite points
    the ``max_points / (1 - percentile / 100)`` with the least lots are candidates (at most
    4 × ``max_points``). :meth:`cloud` drops the candidates whose confidence is below the
    percentile ``confidence_percentile`` of the candidates' own confidences, which is that of
    the scene where it has no more points than that and an unbiased estimate of it otherwise;
    then the least lots up to ``max_points`` remain, in the order of views and pixels. A point at
    the percentile itself stays, so a scene with any finite point has a cloud with at least one.
    A confidence that is not a number counts as the least, an infinite one as the greatest.
    Memory: 35 bytes a candidate, at most five times that while thinning.

    Where it is known how many ``pixels`` will come, lots that ``SPARE_LOTS`` times the candidates
    lie below are never looked at: quick, and the same unless more than a fifth of the points are
    not finite. Then there are fewer candidates, at least one of every view that has a finite
    point and comes while there are too few: a cloud of a few dozen points may depend on the order.
    """

    def __init__(
        self,
        max_points: int = 5_000_000,
        confidence_percentile: float = 25.0,
        seed: int = 0,
        pixels: int | None = None,
    ) -> None:
        check_sampling(max_points, confidence_percentile, seed)
        self.max_points = max_points
        self.confidence_percentile = confidence_percentile
        self.seed = seed
        spare = min(_MOST_SPARE, 1 / (1 - confidence_percentile / 100))
        self._capacity = math.ceil(max_points * spare)
        self._rows: list[NDArray[np.void]] = []
        self._held = 0
        self._highest_lot = min(1.0, SPARE_LOTS * self._capacity / pixels) if pixels else 1.0

    def add(
        self,
        view: DenseView,
        image: Tensor,  # [3, H, W] uint8
    ) -> None:
        """Offer all points of ``view`` with the colours of its ``image``."""
        height, width = view.depth.shape
        checks.require(
            tuple(image.shape) == (3, height, width),
            "image",
            f"be [3, {height}, {width}] like the view's maps",
            list(image.shape),
        )
        lots = np.random.default_rng([self.seed, view.index]).random(height * width)
        points = view.points.detach().to("cpu", torch.float32).reshape(-1, 3).numpy()
        taken = np.flatnonzero(lots < self._highest_lot)
        taken = taken[np.isfinite(points[taken]).all(axis=1)]
        if not len(taken) and self._held < self._capacity:
            finite = np.flatnonzero(np.isfinite(points).all(axis=1))
            taken = finite[np.argsort(lots[finite])[:1]]
        confidence = view.points_confidence.detach().to("cpu", torch.float32).flatten().numpy()
        rows = np.empty(len(taken), _ROW)
        rows["lot"] = lots[taken]
        rows["place"] = (view.index << 32) + taken
        rows["confidence"] = _sortable(confidence[taken])
        rows["xyz"] = points[taken]
        rows["rgb"] = image.detach().cpu().flatten(1).numpy()[:, taken].T
        self._rows.append(rows)
        self._held += len(rows)
        if self._held > 2.5 * self._capacity:
            self._thin()

    def save(self, path: Path) -> None:
        """Write what is kept so far, for :meth:`load`."""
        self._thin()
        with path.open("wb") as file:
            np.save(file, self._rows[0], allow_pickle=False)

    def load(self, path: Path) -> None:
        """Take over what a cloud with the same options, of other views, has saved."""
        self._rows.append(np.load(path, allow_pickle=False))
        self._held += len(self._rows[-1])
        self._thin()

    def cloud(self) -> Cloud:
        """The points kept so far; more views may be added afterwards."""
        rows = self._gathered()
        kept = _least(rows["lot"], self._capacity)
        if len(kept):
            # By rank, not np.percentile: that multiplies infinities by zero.
            rank = int(self.confidence_percentile / 100 * (len(kept) - 1))
            confidence = rows["confidence"][kept]
            kept = kept[confidence >= np.partition(confidence, rank)[rank]]
            kept = kept[_least(rows["lot"][kept], self.max_points)]
        # Rows are moved once, when all that is known of them has been decided.
        rows = rows[kept[np.argsort(rows["place"][kept])]]
        xyz, rgb = np.array(rows["xyz"], order="C"), np.array(rows["rgb"], order="C")
        origin = np.stack([rows["place"] >> 32, rows["place"] & 0xFFFFFFFF], axis=-1)
        return Cloud(torch.from_numpy(xyz), torch.from_numpy(rgb), torch.from_numpy(origin))

    def _gathered(self) -> NDArray[np.void]:
        if len(self._rows) != 1:
            self._rows = [np.concatenate(self._rows) if self._rows else np.empty(0, _ROW)]
        return self._rows[0]

    def _thin(self) -> None:
        held = self._gathered()
        rows = held[_least(held["lot"], self._capacity)]
        if len(rows) == self._capacity:
            self._highest_lot = float(rows["lot"].max())
        self._rows = [rows]
        self._held = len(rows)


def _sortable(confidence: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(confidence), np.float32(-np.inf), confidence)


def _least(lots: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Places of the ``count`` least."""
    if len(lots) <= count:
        return np.arange(len(lots))
    return np.argpartition(np.ascontiguousarray(lots), count - 1)[:count]
