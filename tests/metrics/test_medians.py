"""Medians are numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vggt3.metrics.medians import median, medians


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_as_numpy_has_it(count: int) -> None:
    values = torch.randn(count, dtype=torch.float64)
    assert median(values) == np.median(values.numpy())
    values[count // 2] = torch.nan
    assert math.isnan(median(values)) and np.isnan(np.median(values.numpy()))


def test_of_none_there_is_none() -> None:
    assert math.isnan(median(torch.zeros(0)))
    assert medians(torch.zeros(3, 0)).isnan().all()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("kinds", [2, 5, 10**6])
def test_of_rows_without_their_nan(count: int, kinds: int) -> None:
    """Few kinds of values: the two in the middle are often equal."""
    values = torch.randint(kinds, (40, count)) / 8 - 1
    values[torch.rand(40, count) < 0.3] = torch.nan
    values[0] = torch.nan
    values[1:, 0] = 3.0
    values[5:9, -1] = torch.inf
    values[9, -1] = -torch.inf
    expected = [math.nan, *(np.nanmedian(row.numpy()) for row in values[1:])]
    found = medians(values)
    assert found.dtype == torch.float32 and found.isnan().tolist() == [True] + [False] * 39
    np.testing.assert_array_equal(found.numpy(), np.array(expected, dtype=np.float32))
