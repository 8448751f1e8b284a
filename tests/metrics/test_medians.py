"""Medians are numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vggt3.metrics.medians import median


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_as_numpy_has_it(count: int) -> None:
    values = torch.randn(count, dtype=torch.float64)
    assert median(values) == np.median(values.numpy())
    values[count // 2] = torch.nan
    assert math.isnan(median(values)) and np.isnan(np.median(values.numpy()))


def test_of_none_there_is_none() -> None:
    assert math.isnan(median(torch.zeros(0)))
