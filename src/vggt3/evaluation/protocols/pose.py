"""Poses of any set of views (FACTS section 4): pairs of cameras, and the path they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.record import Need, Scene
from vggt3.evaluation.loading import LoadedScene
from vggt3.evaluation.protocols.base import Answer, Protocol, Scored
from vggt3.evaluation.protocols.selection import Chosen
from vggt3.evaluation.scoring import Scores
from vggt3.metrics import PoseAccuracy, TrajectoryError, sideways


@dataclass(frozen=True)
class Poses(Protocol):
    """AUC@30, RRA and RTA over all pairs; ATE after Sim(3) and RPE over one view."""

    needs: ClassVar[tuple[Need, ...]] = ("pose",)
    kind: ClassVar[str] = "pose"

    def check(self, scene: Scene) -> None:
        """Raise DataError where there is no pair of views to be scored."""
        super().check(scene)
        count = len(self.choose(scene).scored)
        told = "have at least 2 views to be scored in pairs (--every)"
        checks.require(count > 1, f"scene {scene.name}", told, count, error=checks.DataError)

    def score(
        self,
        loaded: LoadedScene,
        chosen: Chosen,
        answer: Answer,
        clouds: tuple[str, ...],
        device: torch.device | str,
    ) -> Scored:
        """Scores of the cameras; clouds and dense maps are not looked at."""
        guess = answer.cameras.camera_from_world[list(chosen.scored)].double().cpu()
        truth = loaded.truth
        scores = {**pair_scores(guess, truth), **path_scores(guess, truth)}
        trivial = pair_scores(sideways(truth[None])[0], truth)
        return Scored({**scores, "views": float(len(truth))}, trivial, {})


def pair_scores(
    guess: Tensor,  # [V, 3, 4] camera_from_world
    truth: Tensor,  # [V, 3, 4] camera_from_world
) -> Scores:
    """Percent over all pairs i < j; all nan with fewer than two views."""
    metric = PoseAccuracy()
    metric.update(guess[None], truth[None])
    found = {name: float(value) for name, value in metric.compute().items() if name != "still"}
    return found if len(truth) > 1 else dict.fromkeys(found, math.nan)


def path_scores(guess: Tensor, truth: Tensor) -> Scores:
    """ATE and RPE in the truth's unit; nan where the cameras cannot be aligned."""
    metric = TrajectoryError()
    metric.update(guess, truth)
    return {name: float(value) for name, value in metric.compute().items() if name != "lost"}
