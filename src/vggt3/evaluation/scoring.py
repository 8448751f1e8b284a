"""The scores of one scene of an exam."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggt3 import checks
from vggt3.evaluation.rooms import ExamScene
from vggt3.geometry.alignment import Similarity, umeyama
from vggt3.geometry.projection import unproject
from vggt3.metrics import AbsRel, PoseAccuracy, sideways, still_baseline
from vggt3.metrics.clouds import CloudErrors, Surface, cloud_errors, icp

POINTS = 20_000
"""Points of a scene, the same pixels in prediction and truth."""
FEW = 100_000
"""Points that are compared on the CPU wherever the rest is computed: a tree finds them sooner."""
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
    predicted: Predicted,
    scene: ExamScene,
    device: torch.device | str = "cpu",
    most: int | None = -1,
    draw: Draw | None = None,
) -> tuple[Scores, Scores]:
    """The prediction's scores and the trivial guess's; clouds are compared on ``device``, at
    most ``most`` points of them (-1: 20,000; None: all), and shown to ``draw``.

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
        scores |= cloud_scores(predicted.points, scene, device, most, draw)
    return scores, trivial


def _pose_scores(guess: Tensor, truth: Tensor, least: Tensor) -> Scores:
    poses = PoseAccuracy()
    poses.update(guess.float()[None], truth[None], least)
    found = {name: float(value) for name, value in poses.compute().items()}
    pairs = len(truth) * (len(truth) - 1) / 2
    if found["still"] == pairs:
        found |= {name: math.nan for name in found if name.startswith("rta")}
    return {**found, "pairs": pairs}


@dataclass(frozen=True)
class CloudRules:
    """How clouds are compared."""

    icp_limit: float = ICP_LIMIT_M
    """Pairs this far apart are not heard by ICP; the truth's unit."""
    points: int | None = None
    """Points that are refined and compared, the same in prediction and truth; None is all."""
    medians: bool = False
    """Whether medians of both distances are scores too."""


@dataclass(frozen=True)
class AlignedCloud:
    """A predicted cloud where the truth is, and how far from it."""

    points: Tensor
    """[N, 3] after Sim(3) and ICP, the truth's frame and unit."""
    errors: CloudErrors
    motion: Similarity
    """From the prediction's frame to the truth's."""


Draw = Callable[[Mapping[str, AlignedCloud], Tensor], None]
"""Takes the clouds that could be aligned, and the true one [N, 3]; both in the truth's frame."""


def cloud_scores(
    clouds: Mapping[str, Tensor],  # [V, H, W, 3] each
    scene: ExamScene,
    device: torch.device | str = "cpu",
    most: int | None = -1,
    draw: Draw | None = None,
) -> Scores:
    """CD, NC and their parts for each cloud; nan where a cloud cannot be aligned. At most
    ``most`` points (-1: 20,000; None: all) are refined and compared."""
    known = scene.depth.to(device) > 0
    depth, intrinsics, poses = (
        part.to(device).double()
        for part in (scene.depth, scene.intrinsics, scene.camera_from_world)
    )
    true_map = unproject(depth, intrinsics, poses, PIXEL_OFFSET)
    guesses = {name: points.to(device)[known] for name, points in clouds.items()}
    rules = CloudRules(ICP_LIMIT_M, POINTS if most == -1 else most)
    scores, aligned = score_clouds(guesses, true_map[known], rules, scene.index, device)
    if draw is not None:
        draw(aligned, true_map[known])
    return scores


def score_clouds(
    guesses: Mapping[str, Tensor],  # [N, 3] each, point for point the truth's
    truth: Tensor,  # [N, 3] float64
    rules: CloudRules,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Scores, dict[str, AlignedCloud]]:
    """Scores of each cloud (the first one's names are plain), and the clouds that could be
    aligned. ``seed`` chooses the points, where not all are taken; what is of all pixels is computed
    on ``device``, and so is the rest if it is of many points."""
    truth = truth.to(device)  # a long scene's products over all pixels take a CPU seconds
    chosen = sample(len(truth), seed, rules.points).to(device)
    near = truth[chosen]
    surface = Surface(near.cpu() if len(near) <= FEW else near) if len(near) else None
    scores: Scores = {}
    aligned: dict[str, AlignedCloud] = {}
    for number, (name, points) in enumerate(guesses.items()):
        found = dict.fromkeys(_NAMES if rules.medians else _NAMES[:4], math.nan)
        try:
            cloud = align_cloud(points.to(truth), truth, chosen, surface, rules.icp_limit)
        except checks.DataError:
            cloud = None
        if cloud is not None:
            aligned[name] = cloud
            found = {key: _part(cloud.errors, key) for key in found}
        ending = f" {name}" if number else ""
        scores |= {key + ending: value for key, value in found.items()}
    return scores, aligned


_NAMES = ("accuracy", "completeness", "cd", "nc", "accuracy median", "completeness median")


def _part(errors: CloudErrors, name: str) -> float:
    field = {"cd": "chamfer", "nc": "normals"}.get(name, name.replace(" ", "_"))
    return float(getattr(errors, field))


def align_cloud(
    guess: Tensor,  # [N, 3] float64
    truth: Tensor,  # [N, 3] float64
    chosen: Tensor,  # [M] indices
    surface: Surface | None,  # of the truth's chosen points
    icp_limit: float,
) -> AlignedCloud:
    """Sim(3) over all pairs that are finite, then ICP and errors of the ``chosen`` ones.

    Raises:
        DataError: fewer than three pairs, or all on one line.
    """
    finite = guess.isfinite().all(-1)
    first = umeyama(guess[finite], truth[finite])
    assert surface is not None  # without a point of the truth, umeyama has raised
    moved = first.apply(guess[chosen[finite[chosen]]]).to(surface.points)
    motion = icp(moved, surface.neighbours, icp_limit)
    points = motion.apply(moved)
    whole = Similarity(
        first.scale,
        motion.rotation.to(first.rotation) @ first.rotation,
        motion.apply(first.translation[None].to(moved))[0].to(first.rotation),
    )
    return AlignedCloud(points, cloud_errors(Surface(points), surface), whole)


def sample(count: int, seed: int, most: int | None = -1) -> Tensor:
    """At most ``most`` (-1: 20,000; None: all) of ``count`` indices, ascending; a function of
    these numbers alone."""
    most = POINTS if most == -1 else most
    if most is None or count <= most:
        return torch.arange(count)
    # Raw bits are what NumPy promises to keep.
    bits = np.random.PCG64(np.random.SeedSequence((count, seed))).random_raw(count)
    return torch.from_numpy(np.sort(np.argpartition(bits, most)[:most]))
