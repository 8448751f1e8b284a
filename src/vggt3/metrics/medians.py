"""The median as numpy and the field's tables have it."""

from __future__ import annotations

import math

from torch import Tensor


def median(values: Tensor) -> float:
    """The middle one of ``values`` that are no nan, of an even number the mean of the two in the
    middle (torch's own takes the lower); nan of none."""
    known = values.flatten()
    known = known[~known.isnan()]
    count = known.numel()
    if count == 0:
        return math.nan
    lower, upper = (known.kthvalue(k).values for k in ((count + 1) // 2, count // 2 + 1))
    return float(lower + upper) / 2 if count % 2 == 0 else float(lower)
