"""Models that know the answer, or nearly: they stand where the engine's answer stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vggt3.data.readers.record import Scene
from vggt3.evaluation.examine import exam_engine, open_examined
from vggt3.evaluation.loading import load_views
from vggt3.evaluation.protocols.base import Answer
from vggt3.evaluation.protocols.selection import Chosen
from vggt3.evaluation.protocols.trial import Trial
from vggt3.geometry.alignment import Similarity
from vggt3.geometry.camera import normalise_to_first
from vggt3.geometry.projection import unproject
from vggt3.geometry.rotation import random_rotation
from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice
from vggt3.types import Cameras, DenseView

LONG_SIDE = 56
MOTION = Similarity(
    torch.tensor(0.37, dtype=torch.float64),
    random_rotation((), torch.Generator().manual_seed(0), torch.float64),
    torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64),
)


def engine(seed: int = 0) -> Engine:
    choice = ModelChoice(preset="tiny", seed=seed)
    return exam_engine(open_examined(choice).model, RunOptions(device="cpu"))


def truth(scene: Scene, views: tuple[int, ...], motion: Similarity = MOTION) -> Answer:
    """The truth in another frame and unit; points and depth agree."""
    loaded = load_views(scene, views, LONG_SIDE, ("pose", "intrinsics", "depth"))
    assert loaded.poses is not None and loaded.intrinsics is not None
    assert loaded.depth is not None
    poses = motion.apply_to_cameras(normalise_to_first(loaded.poses))
    found = {}
    for n, depth in enumerate(loaded.depth):
        seen = torch.where(depth > 0, depth.double(), 1.0) * motion.scale
        points = unproject(seen, loaded.intrinsics[n], poses[n], 0.5)
        ones = torch.ones_like(seen)
        found[n] = DenseView(n, seen, ones, points, ones)
    return Answer(Cameras(poses, loaded.intrinsics, loaded.sizes), found)


Change = Callable[[Answer], Answer]


def knows(monkeypatch: pytest.MonkeyPatch, change: Change = lambda answer: answer) -> None:
    """Let every trial be answered with the truth, changed."""

    def answer(self: Trial, scene: Scene, chosen: Chosen) -> Answer:
        assert self.long_side == LONG_SIDE
        return change(truth(scene, chosen.views))

    monkeypatch.setattr(Trial, "answer", answer)


def changed_views(answer: Answer, change: Callable[[DenseView], DenseView]) -> Answer:
    return replace(answer, views={n: change(view) for n, view in answer.views.items()})
