"""The median as numpy and the field's tables have it."""

from __future__ import annotations

import math

from torch import Tensor


def median(values: Tensor) -> float:
    """The middle one of ``values``, of an even number the mean of the two in the middle (torch's
    own takes the lower); nan of none, and where one of them is nan."""
    known, count = values.flatten(), values.numel()
    if count == 0 or bool(known.isnan().any()):
        return math.nan
    lower, upper = (known.kthvalue(k).values for k in ((count + 1) // 2, count // 2 + 1))
    return float(lower + upper) / 2 if count % 2 == 0 else float(lower)
