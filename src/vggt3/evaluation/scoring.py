"""The scores of one scene of an exam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggt3 import checks
from vggt3.evaluation.rooms import ExamScene
from vggt3.geometry.alignment import umeyama
from vggt3.geometry.projection import unproject
from vggt3.metrics import AbsRel, PoseAccuracy, sideways, still_baseline
from vggt3.metrics.clouds import Surface, cloud_errors, icp

POINTS = 20_000
"""Points of a scene, the same pixels in prediction and truth."""
ICP_LIMIT_M = 0.1
PIXEL_OFFSET = 0.5
"""Of the truth: its rays pass through pixel centres."""

Scores = dict[str, float]
"""Name → value; nan where it has none."""


@dataclass(frozen=True)
class Predicted:
    """What a model says of one scene, in any frame and unit of its own."""

    camera_from_world: Tensor
    """[V, 3, 4]"""
    depth: Tensor
    """[V, H, W] along z."""
    points: Mapping[str, Tensor]
    """[V, H, W, 3] world points by where they come from; the first one's scores have plain
    names, another's end in its name."""


def score_scene(
    predicted: Predicted, scene: ExamScene, device: torch.device | str = "cpu"
) -> tuple[Scores, Scores]:
    """The prediction's scores and the trivial guess's; clouds are compared on ``device``.

    Percent: auc@30, rra@5 to rta@30, delta. A share: absrel. Metres after Sim(3) and ICP:
    accuracy, completeness, cd. |cos|: nc. Counts: pairs, still.
    """
    truth, known = scene.camera_from_world, scene.depth > 0
    least = still_baseline(scene.depth[None], known[None])
    scores = _pose_scores(predicted.camera_from_world.cpu(), truth, least)
    trivial = _pose_scores(sideways(truth[None])[0], truth, least)
    depths = AbsRel()
    depths.update(predicted.depth.cpu().float()[None], scene.depth[None], known[None])
    scores |= {name: float(value) for name, value in depths.compute().items()}
    if predicted.points:
        scores |= cloud_scores(predicted.points, scene, device)
    return scores, trivial


def _pose_scores(guess: Tensor, truth: Tensor, least: Tensor) -> Scores:
    poses = PoseAccuracy()
    poses.update(guess.float()[None], truth[None], least)
    found = {name: float(value) for name, value in poses.compute().items()}
    pairs = len(truth) * (len(truth) - 1) / 2
    if found["still"] == pairs:
        found |= {name: math.nan for name in found if name.startswith("rta")}
    return {**found, "pairs": pairs}


def cloud_scores(
    clouds: Mapping[str, Tensor],  # [V, H, W, 3] each
    scene: ExamScene,
    device: torch.device | str = "cpu",
) -> Scores:
    """CD, NC and their parts for each cloud; nan where a cloud cannot be aligned."""
    known = scene.depth > 0
    true_map = unproject(
        scene.depth.double(), scene.intrinsics.double(), scene.camera_from_world.double(),
        PIXEL_OFFSET,
    )  # fmt: skip
    truth = true_map[known]  # [N, 3]
    chosen = sample(len(truth), scene.index)
    surface = Surface(truth[chosen].to(device))
    scores: Scores = {}
    for number, (name, points) in enumerate(clouds.items()):
        guess = points.cpu()[known].double()
        try:
            found = _cloud(guess, truth, chosen, surface)
        except checks.DataError:
            found = dict.fromkeys(("accuracy", "completeness", "cd", "nc"), math.nan)
        ending = f" {name}" if number else ""
        scores |= {key + ending: value for key, value in found.items()}
    return scores


def _cloud(guess: Tensor, truth: Tensor, chosen: Tensor, surface: Surface) -> Scores:
    """Align over all known pixels, then compare the ``chosen`` ones."""
    finite = guess.isfinite().all(-1)
    first = umeyama(guess[finite], truth[finite])
    moved = first.apply(guess[chosen[finite[chosen]]]).to(surface.points)
    motion = icp(moved, surface.neighbours, ICP_LIMIT_M)
    found = cloud_errors(Surface(motion.apply(moved)), surface)
    return {
        "accuracy": found.accuracy,
        "completeness": found.completeness,
        "cd": found.chamfer,
        "nc": found.normals,
    }


def sample(count: int, seed: int) -> Tensor:
    """At most 20,000 of ``count`` indices, ascending; a function of the two numbers alone."""
    if count <= POINTS:
        return torch.arange(count)
    # Raw bits are what NumPy promises to keep.
    bits = np.random.PCG64(np.random.SeedSequence((count, seed))).random_raw(count)
    return torch.from_numpy(np.sort(np.argpartition(bits, POINTS)[:POINTS]))
