"""Bootstrap intervals over scenes: how sure a mean is, and a difference between two runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 20261122
COVERAGE = 95.0
"""Percent."""


@dataclass(frozen=True)
class Interval:
    """A mean over scenes and its 95 % interval; nan where no scene has a value, and no interval
    (nan) of a single one, whose resamples are all itself."""

    mean: float
    low: float
    high: float
    count: int
    """Scenes that have a value."""

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside: for a difference, that it is more than chance."""
        return self.low > 0 or self.high < 0

    def told(self, form: Callable[[float], str]) -> str:
        """``mean [low, high]``; why there is none where a single scene has a value."""
        if self.count == 0:
            return form(math.nan)
        ends = "one scene" if self.count == 1 else f"{form(self.low)}, {form(self.high)}"
        return f"{form(self.mean)} [{ends}]"


def interval(values: Sequence[float]) -> Interval:
    """The mean of ``values`` (one a scene; nan is left out) and its percentile interval.

    10,000 seeded resamples of the scenes: equal values give equal intervals.
    """
    known = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    if not len(known):
        return Interval(np.nan, np.nan, np.nan, 0)
    if len(known) == 1:
        return Interval(float(known[0]), np.nan, np.nan, 1)
    means = known[_resamples(len(known))].mean(axis=1)
    low, high = np.percentile(means, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2])
    return Interval(float(known.mean()), float(low), float(high), len(known))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The mean of ours − theirs over scenes that both have; one entry a scene, same order."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])


@functools.lru_cache(maxsize=2)
def _resamples(count: int) -> NDArray[np.int32]:
    """[10,000, count] indices, from a generator's raw bits, which NumPy promises to keep."""
    bits = np.random.PCG64(SEED).random_raw(RESAMPLES * count)
    return ((bits >> np.uint64(11)) * 2.0**-53 * count).astype(np.int32).reshape(-1, count)
