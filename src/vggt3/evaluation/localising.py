"""Localisation on rooms-v1: part of a scene's photos is mapped, further ones are asked.

Of 150 photos spread evenly over a scene of the set v300, every third is a query and the other
100 are mapped (FACTS section 4: a Sim(3) from the map's camera centres to the truth, applied to
the answers). Queries are to be found about as well as the map knows its own photos: their median
errors are set against those of the map's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.evaluation.protocols.localise import NO_LIMIT
from vggt3.evaluation.rooms import ExamScene
from vggt3.evaluation.scoring import Scores
from vggt3.geometry.alignment import Similarity
from vggt3.geometry.camera import normalise_to_first
from vggt3.inference.localise import Localizer, QueryOptions
from vggt3.inference.mapping import map_taken
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.taking import take
from vggt3.metrics import PoseAccuracy, align_cameras, pose_errors, still_baseline
from vggt3.metrics.medians import median, medians
from vggt3.types import Views

SET, MAPPED, ASKED = "v300", 100, 50
"""The protocol: which set of rooms-v1, photos of the map, queries."""
MOST = 1.5
"""The target: median error of queries over that of the map's own photos."""
LEAST_AUC = 50.0
"""Percent: scenes whose map is worse are reported and not counted."""


SCORES = {
    "map_auc": "map auc@30",
    "map_rotation_deg": "map rotation median",
    "map_translation_m": "map translation median",
    "query_rotation_deg": "rotation median",
    "query_translation_m": "translation median",
    "rotation_ratio": "rotation ratio",
    "translation_ratio": "translation ratio",
    "confidence": "confidence",
}
"""What a row's fields are called in files."""


@dataclass(frozen=True)
class LocalisationRow:
    """One scene. Errors are medians, after the alignment of the map's centres to the truth."""

    index: int
    """Of the scene in its set."""
    map_auc: float
    """AUC@30 of the map's own pairs, percent."""
    map_rotation_deg: float
    map_translation_m: float
    query_rotation_deg: float
    query_translation_m: float
    confidence: float
    """Median of the queries'."""

    def scores(self) -> Scores:
        """The same as the scores of a run's file, with both ratios."""
        found = {key: float(getattr(self, name)) for name, key in SCORES.items()}
        return {**found, "views": float(MAPPED), "queries": float(ASKED)}

    @staticmethod
    def of(index: int, scores: Scores) -> LocalisationRow:
        """The row whose :meth:`scores` these are."""
        given = {f.name: scores[SCORES[f.name]] for f in fields(LocalisationRow)[1:]}
        return LocalisationRow(index, **given)

    @property
    def rotation_ratio(self) -> float:
        """Of queries to map."""
        return self.query_rotation_deg / max(self.map_rotation_deg, 1e-9)

    @property
    def translation_ratio(self) -> float:
        """Of queries to map."""
        return self.query_translation_m / max(self.map_translation_m, 1e-9)


def split(views: int, mapped: int = MAPPED, asked: int = ASKED) -> tuple[list[int], list[int]]:
    """Which photos of a scene are mapped and which are asked: evenly spread, the first mapped.

    Raises:
        UsageError: fewer photos than both together.
    """
    total = mapped + asked
    checks.require(views >= total, "a scene", f"have at least {total} photos", views)
    chosen = [n * views // total for n in range(total)]
    queries = {(2 * k + 1) * total // (2 * asked) for k in range(asked)}
    return (
        [view for n, view in enumerate(chosen) if n not in queries],
        [view for n, view in enumerate(chosen) if n in queries],
    )


def localisation_row(
    engine: SceneEngine,
    scene: ExamScene,
    mapped: Sequence[int],
    asked: Sequence[int],
    query: QueryOptions | None = None,
) -> LocalisationRow:
    """Map some photos of a scene, localise others, and hold both to the truth."""
    query = query or QueryOptions(dense=False)
    height, width = scene.images.shape[-2:]
    taken = take(Views.from_tensor(scene.images[list(mapped)]), max(height, width))
    memory = map_taken(engine, taken, NO_LIMIT)
    localizer = Localizer(engine, memory, query)
    answers = sorted(
        localizer.ask(Views.from_tensor(scene.images[list(asked)])), key=lambda a: a.index
    )
    truth = normalise_to_first(scene.camera_from_world[[*mapped, *asked]].double())
    known, sought = truth[: len(mapped)], truth[len(mapped) :]
    ours = memory.cameras.camera_from_world.double()
    found = torch.stack([answer.camera_from_world for answer in answers]).double()
    try:
        motion = align_cameras(ours, known)
    except checks.DataError:  # a map on a line, or without finite cameras, has no frame to be in
        motion = None
    accuracy = PoseAccuracy()
    depth = scene.depth[list(mapped)]
    accuracy.update(ours[None], known[None], still_baseline(depth[None], depth[None] > 0))
    sure = torch.tensor([answer.confidence for answer in answers])
    return LocalisationRow(
        scene.index,
        float(accuracy.compute()["auc@30"]),
        *_median_errors(motion, ours, known),
        *_median_errors(motion, found, sought),
        median(sure),
    )


def _median_errors(
    motion: Similarity | None,
    found: Tensor,  # [N, 3, 4] camera_from_world in the map's world
    truth: Tensor,  # [N, 3, 4] camera_from_world, metres
) -> tuple[float, float]:
    """Degrees and metres; nan where nothing could be aligned."""
    if motion is None:
        return math.nan, math.nan
    turn, away = pose_errors(motion.apply_to_cameras(found), truth)
    return median(turn), median(away)


def summary(rows: Iterable[LocalisationRow]) -> dict[str, float]:
    """Medians over the scenes that count (the map's AUC@30 ≥ 50), and how many do; nan if none.

    ``holds`` is 1 where both ratios of these medians are at most 1.5; nan where one is unknown.
    """
    rows = list(rows)
    counted = [row for row in rows if row.map_auc >= LEAST_AUC]
    found: dict[str, float] = {"scenes": len(rows), "counted": len(counted)}
    for f in fields(LocalisationRow)[1:]:
        values = torch.tensor([[getattr(row, f.name) for row in counted]], dtype=torch.float64)
        found[f.name] = float(medians(values))
    for what in ("rotation_deg", "translation_m"):
        ratio = found[f"query_{what}"] / max(found[f"map_{what}"], 1e-9)
        found[f"{what.partition('_')[0]}_ratio"] = ratio
    both = found["rotation_ratio"], found["translation_ratio"]
    found["holds"] = math.nan if any(map(math.isnan, both)) else float(max(both) <= MOST)
    return found


def auroc(
    scores: Tensor,  # [N]
    positive: Tensor,  # [N] bool
) -> float:
    """Probability that a positive's score is above a negative's, ties counting half."""
    high, low = scores[positive].double(), scores[~positive].double()
    above = (high[:, None] > low).double() + 0.5 * (high[:, None] == low)
    return float(above.mean())
