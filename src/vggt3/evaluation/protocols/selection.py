"""Which frames of a sequence a protocol looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chosen:
    """Frames of a scene."""

    views: tuple[int, ...]
    """What the model sees, in order."""
    scored: tuple[int, ...]
    """Places among ``views`` that are compared with the truth."""


@dataclass(frozen=True)
class Every:
    """Every ``step``-th frame from the first on, ``most`` of them at the most."""

    step: int = 1
    most: int | None = None

    def choose(self, count: int) -> Chosen:
        """Of ``count`` frames."""
        return all_scored(range(0, count, self.step)[: self.most])


@dataclass(frozen=True)
class Strided:
    """Reference views evenly over the sequence, and support views spread between them.

    References are at ⌊n · count / references⌋ (linspace, end left out). Support views are evenly
    spaced places of the frames that remain; all of these where there are not enough.
    """

    references: int = 10
    support: int = 100

    def choose(self, count: int) -> Chosen:
        """Of ``count`` frames."""
        scored = np.unique(np.linspace(0, count, self.references, endpoint=False).astype(int))
        left = np.setdiff1d(np.arange(count), scored)
        places = np.linspace(0, len(left), min(self.support, len(left)), endpoint=False)
        views = np.sort(np.concatenate([scored, left[places.astype(int)]]))
        return Chosen(tuple(views.tolist()), tuple(np.searchsorted(views, scored).tolist()))


Selection = Every | Strided


def all_scored(views: Sequence[int]) -> Chosen:
    """Every view is compared."""
    return Chosen(tuple(views), tuple(range(len(views))))
