"""How far predicted depth maps are from the truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggt3.metrics.medians import medians


def relative_depth_error(
    predicted: Tensor,  # [..., H, W]
    truth: Tensor,  # [..., H, W]
    valid: Tensor,  # [..., H, W] bool
) -> Tensor:
    """|predicted − true| / true [..., H, W]; 0 where not valid."""
    error = (predicted - truth).abs() / torch.where(valid, truth, 1)
    return torch.where(valid, error, 0)


def median_scale(
    predicted: Tensor,  # [B, V, H, W]
    truth: Tensor,  # [B, V, H, W]
    valid: Tensor,  # [B, V, H, W] bool
) -> Tensor:
    """The median of true / predicted over each scene's valid pixels: [B]."""
    ratio = torch.where(valid, truth / predicted.clamp(min=1e-6), torch.nan)
    return medians(ratio.flatten(1)).nan_to_num(1.0)


class AbsRel(Metric):
    """Mean relative depth error after one scale a scene (median), and the share δ < 1.25.

    A pixel that is not in front of the camera is not close. Scenes without a valid pixel do not
    count; both are nan where no scene does.
    """

    higher_is_better = False
    full_state_update = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.error: Tensor
        self.close: Tensor
        self.scenes: Tensor
        for name in ("error", "close", "scenes"):
            start = torch.zeros((), dtype=torch.float64)
            self.add_state(name, start, dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,  # [B, V, H, W]
        truth: Tensor,  # [B, V, H, W]
        valid: Tensor,  # [B, V, H, W] bool
    ) -> None:
        """Add scenes; each that has truth counts the same."""
        scaled = predicted * median_scale(predicted, truth, valid)[:, None, None, None]
        pixels = valid.sum((1, 2, 3))
        count = pixels.clamp(min=1)
        error = relative_depth_error(scaled, truth, valid)
        ratio = torch.maximum(scaled / truth, truth / scaled)
        close = (valid & (ratio < 1.25) & (scaled > 0)).sum((1, 2, 3))
        self.error += (error.sum((1, 2, 3)) / count).double().sum()
        self.close += (close / count).double().sum()
        self.scenes += (pixels > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """``absrel`` (a share) and ``delta`` (percent)."""
        return {"absrel": self.error / self.scenes, "delta": 100 * self.close / self.scenes}
