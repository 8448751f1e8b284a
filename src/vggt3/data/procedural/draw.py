"""The stream of random numbers that a scene is drawn from.

A frozen exam must come out the same in ten years: NumPy and PyTorch promise that only for the
raw bits of a bit generator, not for their distributions, so these few are built here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

BLOCK = 512


class Draw:
    """Random numbers of one scene. ``Draw(seed, index)`` shares no stream with another of 32 bits
    each; of wider ones, keys that are equal in their 32-bit words, zeros at the end left out, do.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))
        self._block: list[float] = []

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            raw = np.asarray(self._bits.random_raw(BLOCK)) >> np.uint64(11)
            self._block = (raw * 2.0**-53).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def log_uniform(self, low: float, high: float) -> float:
        """Log-uniform in [low, high), both > 0."""
        return low * (high / low) ** self.unit()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def integer(self, low: int, high: int) -> int:
        """Uniform over low, …, high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def choice(self, items: Sequence[Item]) -> Item:
        """One of ``items``."""
        return items[self.integer(0, len(items) - 1)]

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, with probability proportional to its weight."""
        left = self.unit() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return index
        return len(weights) - 1

    def normal(self, scale: float = 1.0) -> float:
        """Gaussian with mean 0."""
        radius = math.sqrt(-2 * math.log(1 - self.unit()))
        return scale * radius * math.cos(2 * math.pi * self.unit())

    def angle(self) -> float:
        """Uniform in [0, 2π)."""
        return 2 * math.pi * self.unit()

    def direction(self) -> tuple[float, float, float]:
        """Uniform over the unit sphere."""
        z, turn = self.uniform(-1, 1), self.angle()
        ring = math.sqrt(max(0.0, 1 - z * z))
        return ring * math.cos(turn), ring * math.sin(turn), z

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """A copy of ``items`` in random order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.integer(0, last)
            result[last], result[other] = result[other], result[last]
        return result

    def seed(self) -> int:
        """An integer below 2²², exact in float32 even after a few offsets are added."""
        return int(self.unit() * (1 << 22))
