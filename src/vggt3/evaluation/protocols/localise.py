"""Localisation (FACTS section 4): a map of one split, queries of the other, one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import read_scenes
from vggt3.data.readers.record import Need, Scene, View
from vggt3.evaluation.loading import LoadedScene
from vggt3.evaluation.protocols.base import WHOLE, Answer, Kept, Protocol, Scored
from vggt3.evaluation.protocols.selection import Chosen, Every, Selection
from vggt3.evaluation.scoring import Scores
from vggt3.geometry.camera import decode_pose
from vggt3.inference.engine import Engine
from vggt3.metrics import QueryAccuracy, align_cameras
from vggt3.types import Cameras, Views

PosesOf = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, Tensor]]
"""Map images and query images [3, h, w] uint8 → camera_from_world of both, [M, 3, 4], [Q, 3, 4]."""


@dataclass(frozen=True)
class Localisation(Protocol):
    """Sim(3) from the map's predicted centres to the true ones, applied to the queries."""

    map_split: str = "train"
    map_views: Selection = WHOLE
    """Of each of the map's sequences."""

    needs: ClassVar[tuple[Need, ...]] = ("pose",)
    kind: ClassVar[str] = "localise"

    def find(self, folder: Path) -> list[Scene]:
        """A scene for each place: the map's views first, then the queries."""
        found: dict[str, tuple[list[View], list[View], Scene]] = {}
        for split, views in ((self.map_split, self.map_views), (self.split, self.views)):
            for scene in read_scenes(self.layout, folder, split):
                place = scene.name.partition("/")[0]
                if not self.scenes or place in self.scenes:
                    chosen = views.choose(len(scene.views)).views
                    parts = found.setdefault(place, ([], [], scene))
                    part = parts[1] if split == self.split else parts[0]
                    for view in (scene.views[n] for n in chosen):
                        part.append(replace(view, name=f"{scene.name} {split} {view.name}"))
        order = [name for name in self.scenes if name in found] or sorted(found)
        whole = [name for name in order if found[name][0] and found[name][1]]
        told = f"hold views of {self.map_split} and {self.split} of a scene of {self.name}"
        checks.require(bool(whole), f"--data '{folder}'", told, "none", error=checks.DataError)
        return [_joined(name, *found[name]) for name in whole]

    def choose(self, scene: Scene) -> Chosen:
        """All views; :func:`split_at` says which are the map's."""
        return Every(1).choose(len(scene.views))

    def ask(self, engine: Engine, loaded: LoadedScene, chosen: Chosen) -> Answer:
        """Map the map's views, then ask the queries one by one."""
        count = split_at(loaded.names)
        images = list(loaded.images)
        mapped, asked = poses_by(engine)(images[:count], images[count:])
        poses = torch.cat([mapped, asked])
        cameras = Cameras(poses, torch.eye(3).expand(len(poses), 3, 3), loaded.sizes)
        return Answer(cameras, {}, engine.model.config.pixel_offset)

    def score(
        self,
        loaded: LoadedScene,
        chosen: Chosen,
        answer: Answer,
        clouds: tuple[str, ...],
        device: torch.device | str,
    ) -> Scored:
        """Scores of the queries, and of the map's own views."""
        count = split_at(loaded.names)
        guess, truth = answer.cameras.camera_from_world.double().cpu(), loaded.truth
        scores: Scores = {"views": float(count), "queries": float(len(truth) - count)}
        try:
            motion = align_cameras(guess[:count], truth[:count])
        except checks.DataError:
            lost = torch.full_like(truth, math.nan)
            return Scored({**_query_scores(lost[count:], truth[count:]), **scores}, {}, {})
        moved = motion.apply_to_cameras(guess)
        own = _query_scores(moved[:count], truth[:count])
        mine = {f"map {k}": v for k, v in own.items() if k in ("rotation", "translation")}
        return Scored({**_query_scores(moved[count:], truth[count:]), **mine, **scores}, {}, {})


MAP, QUERY = "map: ", "query: "


def split_at(names: tuple[str, ...]) -> int:
    """How many of a scene's views are the map's."""
    return sum(name.startswith(MAP) for name in names)


def _joined(name: str, mapped: list[View], asked: list[View], like: Scene) -> Scene:
    views = [replace(view, name=f"{MAP}{view.name}") for view in mapped]
    views += [replace(view, name=f"{QUERY}{view.name}") for view in asked]
    return Scene(like.dataset, name, tuple(views), like.unit, like.notes)


def _query_scores(guess: Tensor, truth: Tensor) -> Scores:
    metric = QueryAccuracy()
    metric.update(guess, truth)
    found = {name: float(value) for name, value in metric.compute().items()}
    return {name: value for name, value in found.items() if name != "queries"}


def poses_by(engine: Engine) -> PosesOf:
    """Map with an engine's model, then ask each query alone of the settled memory.

    Queries write nothing and never see each other.
    """

    @torch.inference_mode()
    def poses_of(mapped: list[Tensor], asked: list[Tensor]) -> tuple[Tensor, Tensor]:
        sink = Kept(())
        outcome = engine.run(Views.from_list(mapped), sink)
        assert sink.found is not None
        found = []
        half = engine.dtype != torch.float32
        for image in asked:
            with torch.autocast(engine.device.type, dtype=torch.bfloat16, enabled=half):
                trunk = engine.model.read(Views.from_list([image]), memory=outcome.memory)
                row = engine.model.poses(trunk, outcome.memory)[-1][0, 0]
            found.append(decode_pose(row.float().cpu(), (image.shape[-2], image.shape[-1]))[0])
        return sink.found.camera_from_world, torch.stack(found)

    return poses_of
