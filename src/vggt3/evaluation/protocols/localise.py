"""Localisation (FACTS section 4): a map of one split, queries of the other, one at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import read_scenes
from vggt3.data.readers.record import Need, Scene, View
from vggt3.evaluation.loading import LoadedScene
from vggt3.evaluation.protocols.base import WHOLE, Answer, Protocol, Scored
from vggt3.evaluation.protocols.selection import Chosen, Every, Selection
from vggt3.evaluation.scoring import Scores
from vggt3.inference.engine import Engine
from vggt3.inference.localise import Localizer, QueryOptions
from vggt3.inference.mapping import map_taken
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.taking import take
from vggt3.metrics import QueryAccuracy, align_cameras
from vggt3.types import Cameras, Views


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
        mapped, asked = loaded.images[:count], loaded.images[count:]
        scenes = SceneEngine(engine.model, engine.options)
        taken = take(Views.from_list(mapped), max(max(size) for size in loaded.sizes))
        memory = map_taken(scenes, taken, NO_LIMIT)
        found = Localizer(scenes, memory, QueryOptions(dense=False)).ask(Views.from_list(asked))
        answers = sorted(found, key=lambda answer: answer.index)
        poses = [memory.cameras.camera_from_world, *(a.camera_from_world[None] for a in answers)]
        intrinsics = [memory.cameras.intrinsics, *(a.intrinsics[None] for a in answers)]
        sure = torch.tensor([answer.confidence for answer in answers])
        cameras = Cameras(torch.cat(poses), torch.cat(intrinsics), loaded.sizes)
        return Answer(cameras, {}, sure)

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
        if answer.confidence is not None:
            scores["confidence"] = float(answer.confidence.double().mean())
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
NO_LIMIT = "1024T"
"""Every backend is scored, those whose memory grows with the map too."""


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
