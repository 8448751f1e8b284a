"""Bootstrap intervals: against what is known of means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vggt3.evaluation.intervals import interval, paired


def test_equal_values_have_no_width() -> None:
    found = interval([3.0] * 7)
    assert (found.mean, found.low, found.high, found.count) == (3, 3, 3, 7)


def test_the_interval_of_a_normal_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = interval(values.tolist())
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert interval(values.tolist()) == found


def test_95_of_100_intervals_hold_the_mean() -> None:
    random = np.random.default_rng(1)
    held = [interval(random.normal(0, 1, 50).tolist()) for _ in range(200)]
    assert 180 <= sum(not x.excludes_zero for x in held) <= 198


def test_pairs_see_what_the_spread_of_scenes_hides() -> None:
    random = np.random.default_rng(2)
    hardness, noise = random.normal(50, 20, 100), random.normal(0, 0.5, (2, 100))
    ours, theirs = hardness + 1 + noise[0], hardness + noise[1]
    assert paired(ours.tolist(), theirs.tolist()).excludes_zero
    assert interval(ours.tolist()).low < interval(theirs.tolist()).high
    assert not paired(theirs.tolist(), theirs.tolist()).excludes_zero


def test_scenes_without_a_value_are_left_out() -> None:
    found = paired([1.0, math.nan, 4.0], [0.0, 1.0, math.nan])
    assert (found.mean, found.count) == (1, 1)
    assert math.isnan(found.low) and math.isnan(found.high) and not found.excludes_zero
    assert found.told(lambda x: f"{x:.1f}") == "1.0 [one scene]"
    several = interval([1.0, 2.0, 3.0]).told(lambda x: f"{x:.1f}")
    assert several.startswith("2.0 [1.") and several.endswith("]")
    empty = interval([math.nan])
    assert empty.told(lambda x: f"{x}") == "nan"
    assert empty.count == 0 and math.isnan(empty.mean) and not empty.excludes_zero
