"""Depth of videos (FACTS section 4): one scale a sequence, or scale and shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from vggt3 import checks
from vggt3.data.readers.record import Need
from vggt3.evaluation.loading import LoadedScene
from vggt3.evaluation.protocols.base import Answer, Protocol, Scored
from vggt3.evaluation.protocols.selection import Chosen
from vggt3.evaluation.scoring import Scores
from vggt3.metrics import depth_scores


@dataclass(frozen=True)
class VideoDepths(Protocol):
    """AbsRel and δ < 1.25 after the L1 fit of a scale; beside it after scale and shift."""

    farthest: float | None = None
    """True depth beyond is left out; the scene's unit."""

    needs: ClassVar[tuple[Need, ...]] = ("depth",)
    kind: ClassVar[str] = "depth"
    counted: ClassVar[str] = "pixels"

    def score(
        self,
        loaded: LoadedScene,
        chosen: Chosen,
        answer: Answer,
        clouds: tuple[str, ...],
        device: torch.device | str,
    ) -> Scored:
        """Scores of the depth maps; cameras are not looked at."""
        assert loaded.depth is not None
        guesses, truths = [], []
        for n, place in enumerate(chosen.scored):
            truth = loaded.depth[n]
            known = truth > 0
            if self.farthest is not None:
                known &= truth < self.farthest
            guesses.append(answer.views[place].depth.cpu()[known])
            truths.append(truth[known])
        guess, true = torch.cat(guesses), torch.cat(truths)
        scores: Scores = {}
        for ending, with_shift in (("", False), (" shift", True)):
            try:
                absrel, close = (float(x) for x in depth_scores(guess, true, with_shift))
            except checks.DataError:
                absrel = close = math.nan
            scores |= {f"absrel{ending}": absrel, f"delta{ending}": 100 * close}
        scores |= {"views": float(len(loaded.names)), "pixels": float(len(true))}
        return Scored(scores, {}, {})
