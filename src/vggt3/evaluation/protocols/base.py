"""What all protocols share: which data, which scenes, which views, and a score for each scene."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import read_scenes
from vggt3.data.readers.record import Need, Scene
from vggt3.evaluation.loading import LoadedScene
from vggt3.evaluation.protocols.selection import Chosen, Every, Selection
from vggt3.evaluation.scoring import AlignedCloud, Scores
from vggt3.geometry.projection import unproject
from vggt3.inference.collect import Collector
from vggt3.inference.engine import PIXEL_CENTRE, Engine
from vggt3.types import Cameras, DenseView, Views

WHOLE = Every(1)
"""All frames."""


@dataclass(frozen=True)
class Answer:
    """What a model says of a scene's views."""

    cameras: Cameras
    """Of all views."""
    views: Mapping[int, DenseView]
    """By place among the views: those that are scored; points are the point head's."""
    confidence: Tensor | None = None
    """[Q] in (0, 1): how likely it is that a query shows the mapped place."""

    def points(self, source: str, place: int) -> Tensor:
        """[h, w, 3] of one view, by "head", or "depth" and camera."""
        view = self.views[place]
        if source == "head":
            return view.points
        cameras = self.cameras
        pose, intrinsics = cameras.camera_from_world[place], cameras.intrinsics[place]
        return unproject(view.depth, intrinsics, pose, PIXEL_CENTRE)


@dataclass(frozen=True)
class Scored:
    """One scene's scores, what the trivial guess gets, and clouds to be drawn."""

    scores: Scores
    trivial: Scores
    clouds: Mapping[str, AlignedCloud]
    truth: Tensor | None = None
    """[N, 3] the true cloud in the frame of ``clouds``."""


@dataclass(frozen=True)
class Protocol:
    """A way to score a model on a data set; equal fields mean comparable scores."""

    name: str
    """What it goes by on the command line."""
    about: str
    """In a line."""
    layout: str | None
    """Of the folder; None is whatever the folder looks like."""
    split: str | None = None
    scenes: tuple[str, ...] = ()
    """Names of the scenes it consists of; none named: all that are there."""
    views: Selection = WHOLE

    needs: ClassVar[tuple[Need, ...]] = ()
    kind: ClassVar[str] = ""
    draws: ClassVar[bool] = False
    """Whether there are clouds to be drawn."""
    counted: ClassVar[str] = ""
    """The score that says how much truth a scene had to compare with, where it may be none."""

    @property
    def digest(self) -> str:
        """16 digits that differ between protocols whose scores cannot be compared."""
        said = {name: value for name, value in asdict(self).items() if name != "about"}
        text = json.dumps({"kind": self.kind, **said}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def find(self, folder: Path) -> list[Scene]:
        """The protocol's scenes in a folder, in the protocol's order.

        Raises:
            DataError: another layout, or none of the scenes.
        """
        found = read_scenes(self.layout, folder, self.split)
        if not self.scenes:
            return found
        known = {scene.name: scene for scene in found}
        chosen = [known[name] for name in self.scenes if name in known]
        checks.require(
            bool(chosen),
            f"--data '{folder}'",
            f"hold scenes of {self.name} ({', '.join(self.scenes[:3])}, …)",
            ", ".join(list(known)[:4]),
            error=checks.DataError,
        )
        return chosen

    def choose(self, scene: Scene) -> Chosen:
        """The views of one scene."""
        return self.views.choose(len(scene.views))

    def check(self, scene: Scene) -> None:
        """Raise DataError where a view that is scored lacks what scoring needs."""
        scene.require(self.needs, self._scored(scene))

    def checked(self, scenes: Sequence[Scene]) -> list[Scene]:
        """The scenes to be scored. In data of any layout views may have no depth, and know
        nothing, as long as some view that is scored has.

        Raises:
            DataError: a view that is scored lacks what scoring needs.
        """
        depths = (scene.views[n].depth for scene in scenes for n in self._scored(scene))
        if self.layout is None and any(depth is not None for depth in depths):
            scenes = [scene.filled() for scene in scenes]
        for scene in scenes:
            self.check(scene)
        return list(scenes)

    def _scored(self, scene: Scene) -> list[int]:
        chosen = self.choose(scene)
        return [chosen.views[place] for place in chosen.scored]

    def ask(self, engine: Engine, loaded: LoadedScene, chosen: Chosen) -> Answer:
        """What a model says of the views; dense maps of the scored ones alone."""
        sink = Collector(set(chosen.scored))
        engine.run(Views.from_list(loaded.images), sink)
        assert sink.found is not None
        return Answer(sink.found, sink.views)

    def score(
        self,
        loaded: LoadedScene,
        chosen: Chosen,
        answer: Answer,
        clouds: tuple[str, ...],
        device: torch.device | str,
    ) -> Scored:
        """Compare an answer with the truth. ``loaded`` holds the scored views alone."""
        raise NotImplementedError
