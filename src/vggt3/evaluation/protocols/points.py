"""Point maps (FACTS section 4): Sim(3), ICP, then distances and normals both ways."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vggt3.data.readers.record import Need
from vggt3.evaluation.loading import LoadedScene
from vggt3.evaluation.protocols.base import Answer, Protocol, Scored
from vggt3.evaluation.protocols.selection import Chosen
from vggt3.evaluation.scoring import PIXEL_OFFSET, CloudRules, score_clouds
from vggt3.geometry.camera import normalise_to_first
from vggt3.geometry.projection import unproject


@dataclass(frozen=True)
class PointMaps(Protocol):
    """True depth, unprojected into the first view's frame, against predicted points.

    Umeyama over all pixels with depth, unweighted; point-to-point ICP from the identity; no crop,
    no filter by confidence.
    """

    icp_limit: float = 0.1
    """Pairs this far apart are not heard by ICP; the scene's unit."""
    points: int | None = None
    """Points that ICP and distances look at; None is all."""

    needs: ClassVar[tuple[Need, ...]] = ("pose", "intrinsics", "depth")
    kind: ClassVar[str] = "points"
    draws: ClassVar[bool] = True
    counted: ClassVar[str] = "points"

    def score(
        self,
        loaded: LoadedScene,
        chosen: Chosen,
        answer: Answer,
        clouds: tuple[str, ...],
        device: torch.device | str,
    ) -> Scored:
        """Scores of each source of points; the first one's names are plain."""
        assert loaded.poses is not None and loaded.intrinsics is not None
        assert loaded.depth is not None
        poses = normalise_to_first(loaded.poses)
        truth: list[Tensor] = []
        guesses: dict[str, list[Tensor]] = {name: [] for name in clouds}
        for n, place in enumerate(chosen.scored):
            depth = loaded.depth[n].double()
            known = depth > 0
            true_map = unproject(depth, loaded.intrinsics[n], poses[n], PIXEL_OFFSET)
            truth.append(true_map[known])
            for name in clouds:
                guesses[name].append(answer.points(name, place)[known])
        whole = torch.cat(truth)
        rules = CloudRules(self.icp_limit, self.points, medians=True)
        seed = zlib.crc32("/".join(loaded.names).encode())
        joined = {name: torch.cat(parts) for name, parts in guesses.items()}
        scores, aligned = score_clouds(joined, whole, rules, seed, device)
        scores |= {"views": float(len(chosen.views)), "points": float(len(whole))}
        return Scored(scores, {}, aligned, whole)
