"""How far a prediction is from the truth: pure functions, and torchmetrics classes over them."""

from vggt3.metrics.depth import AbsRel, median_scale, relative_depth_error
from vggt3.metrics.localisation import QueryAccuracy, pose_errors
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
from vggt3.metrics.trajectory import (
    TrajectoryError,
    align_cameras,
    relative_errors,
    trajectory_error,
)
from vggt3.metrics.video_depth import VideoDepth, depth_scores, fit_l1

__all__ = [
    "LIMITS_DEG",
    "STILL",
    "AbsRel",
    "PoseAccuracy",
    "QueryAccuracy",
    "TrajectoryError",
    "VideoDepth",
    "accuracy_curve",
    "align_cameras",
    "baselines",
    "depth_scores",
    "fit_l1",
    "median_scale",
    "pair_errors_deg",
    "pose_errors",
    "relative_depth_error",
    "relative_errors",
    "sideways",
    "sign_free_deg",
    "still_baseline",
    "trajectory_error",
]
