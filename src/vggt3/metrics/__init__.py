"""How far a prediction is from the truth: pure functions, and torchmetrics classes over them."""

from vggt3.metrics.depth import AbsRel, median_scale, relative_depth_error
from vggt3.metrics.pose import (
    LIMITS_DEG,
    STILL,
    PoseAccuracy,
    accuracy_curve,
    baselines,
    pair_errors_deg,
    sideways,
    sign_free_deg,
    still_baseline,
)

__all__ = [
    "LIMITS_DEG",
    "STILL",
    "AbsRel",
    "PoseAccuracy",
    "accuracy_curve",
    "baselines",
    "median_scale",
    "pair_errors_deg",
    "relative_depth_error",
    "sideways",
    "sign_free_deg",
    "still_baseline",
]
