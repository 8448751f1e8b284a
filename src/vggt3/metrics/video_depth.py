"""Depth of a video after one scale, or scale and shift, a sequence.

The fit is L1: the scale (and shift) that minimise Σ|s·predicted + t − true| over all valid pixels
of the sequence, by iteratively reweighted least squares. All in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggt3 import checks

ROUNDS = 200
CHANGE = 1e-10
"""The fit ends when both numbers change by less than this share of the scale."""
LEAST_RESIDUAL = 1e-6
"""Share of the median depth under which a residual weighs no more."""
CLOSE = 1.25


def fit_l1(
    predicted: Tensor,  # [N]
    truth: Tensor,  # [N] > 0
    with_shift: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scale and shift (0 unless asked for), float64 scalars.

    Raises:
        DataError: no pair that is finite, or a prediction without any extent.
    """
    x, y = predicted.double(), truth.double()
    known = x.isfinite() & y.isfinite()
    x, y = x[known], y[known]
    checks.require(
        len(x) > 1 and bool((x != 0).any()),
        "depth to fit",
        "have valid pixels and not be all 0",
        f"{len(x)} valid pixels",
        error=checks.DataError,
    )
    floor = LEAST_RESIDUAL * y.median().clamp(min=1e-300)
    weight = torch.ones_like(x)
    scale, shift = x.new_zeros(()), x.new_zeros(())
    for _ in range(ROUNDS):
        before = torch.stack([scale, shift])
        scale, shift = _weighted(x, y, weight, with_shift)
        if not bool(scale.isfinite()):
            checks.fail("depth to fit", "vary", "one value", error=checks.DataError)
        change = (torch.stack([scale, shift]) - before).abs().max()
        if bool(change <= CHANGE * scale.abs()):
            break
        weight = 1 / (scale * x + shift - y).abs().clamp(min=floor)
    return scale, shift


def _weighted(x: Tensor, y: Tensor, weight: Tensor, with_shift: bool) -> tuple[Tensor, Tensor]:
    """Weighted least squares."""
    if not with_shift:
        return (weight * x * y).sum() / (weight * x * x).sum(), x.new_zeros(())
    total = weight.sum()
    x_mean, y_mean = (weight * x).sum() / total, (weight * y).sum() / total
    spread = (weight * (x - x_mean).square()).sum()
    scale = (weight * (x - x_mean) * (y - y_mean)).sum() / spread
    return scale, y_mean - scale * x_mean


def depth_scores(
    predicted: Tensor,  # [N] valid pixels of a sequence
    truth: Tensor,  # [N] > 0
    with_shift: bool = False,
) -> tuple[Tensor, Tensor]:
    """AbsRel and the share of pixels within a factor of 1.25, after the fit: float64 scalars.

    A pixel that is not finite, or not in front of the camera after the fit, is not close; it
    counts in AbsRel as far as it is finite.
    """
    scale, shift = fit_l1(predicted, truth, with_shift)
    y = truth.double()
    x = scale * predicted.double() + shift
    finite = x.isfinite()
    error = ((x - y).abs() / y)[finite].mean()
    close = finite & (torch.maximum(x / y, y / x) < CLOSE) & (x > 0)
    return error, close.double().mean()


class VideoDepth(Metric):
    """AbsRel and δ < 1.25 after one fit a sequence: plain means over the sequences."""

    higher_is_better = False
    full_state_update = False

    def __init__(self, with_shift: bool = False, **options: Any) -> None:
        """Args:
        with_shift: fit scale and shift, else scale alone.
        options: torchmetrics'.
        """
        super().__init__(**options)
        self.with_shift = with_shift
        self.total: Tensor
        self.scenes: Tensor
        self.add_state("total", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("scenes", zero, dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,  # [N] valid pixels of one sequence
        truth: Tensor,  # [N] > 0
    ) -> None:
        """Add one sequence."""
        found = depth_scores(predicted, truth, self.with_shift)
        self.total += torch.stack(found).to(self.total)
        self.scenes += 1

    def compute(self) -> dict[str, Tensor]:
        """``absrel`` (a share) and ``delta`` (percent)."""
        absrel, close = self.total / self.scenes
        return {"absrel": absrel, "delta": 100 * close}
