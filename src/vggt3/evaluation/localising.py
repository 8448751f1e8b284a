"""The exam of localisation (rooms-v1): half of a room's photos are mapped, the others asked."""

from __future__ import annotations

from torch import Tensor


def auroc(
    scores: Tensor,  # [N]
    positive: Tensor,  # [N] bool
) -> float:
    """Probability that a positive's score is above a negative's, ties counting half."""
    high, low = scores[positive].double(), scores[~positive].double()
    above = (high[:, None] > low).double() + 0.5 * (high[:, None] == low)
    return float(above.mean())
