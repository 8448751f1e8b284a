"""The median as numpy and the field's tables have it: of an even number of values the mean of the
two in the middle. torch's own takes the lower.

Scores and alignments take this one. What frozen exams were drawn by, or are stated with, keeps the
one that it was frozen with: ``data/procedural/overlap.py``, ``evaluation/rooms.py``, and
:func:`vggt3.metrics.pose.still_baseline`, by which the share of still pairs was told.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def median(values: Tensor) -> float:
    """Of all ``values``; nan of none, and where one of them is nan."""
    known = values.flatten()
    return math.nan if bool(known.isnan().any()) else float(medians(known[None])[0])


def medians(
    values: Tensor,  # [B, N] floating point
) -> Tensor:
    """Of each row, nan left out: [B]; nan where nothing else is in it."""
    if values.shape[1] == 0:
        return values.new_full(values.shape[:1], torch.nan)
    # By counting: torch.quantile takes 16 million values, and a scene may have more pixels.
    lower = values.nanmedian(dim=1).values
    below = (values <= lower[:, None]).sum(1)
    above = torch.where(values > lower[:, None], values, torch.inf).amin(1)
    alone = 2 * below > (~values.isnan()).sum(1)
    return torch.where(alone, lower, (lower + above) / 2)
