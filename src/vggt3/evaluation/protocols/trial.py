"""A model against a protocol: scene by scene, resumable, rows as they are found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from vggt3 import checks
from vggt3.data.readers.layout import LAYOUTS
from vggt3.data.readers.record import Scene
from vggt3.evaluation.error_pictures import draw_errors
from vggt3.evaluation.loading import load_views
from vggt3.evaluation.protocols.base import Answer, Protocol, Scored
from vggt3.evaluation.protocols.selection import Chosen, Every, Strided
from vggt3.evaluation.record import Record, Row, Task, identity, open_record
from vggt3.evaluation.sitting import Sitting
from vggt3.inference.advice import MEMORY
from vggt3.inference.engine import Engine
from vggt3.io.staging import check_folder

SOURCES = {"both": ("depth", "head"), "depth": ("depth",), "head": ("head",)}


@dataclass(frozen=True)
class TrialOptions:
    """How a model takes part; none of it is the protocol's to say."""

    long_side: int | None = None
    """Pixels of the images' long side in the model; what the weights were trained for if not
    given."""
    scenes: int | None = None
    """Only the first N scenes."""
    points: Literal["both", "depth", "head"] = "both"
    """Clouds that are scored: from depth and camera, the point head's own, or both."""

    every: int | None = None
    """Of each scene every N-th view; only where the protocol itself is of any data."""
    layout: str | None = None
    """The data's layout, where the folder looks like several; only where the protocol is of any
    data."""
    split: str | None = None
    """train, test or all, as far as the layout has them; likewise."""
    pictures: Path | None = None
    """A folder for a picture of every scene that is computed: aligned clouds, coloured by
    error."""

    def __post_init__(self) -> None:
        checks.require(
            self.scenes is None or self.scenes >= 1, "--scenes", "be at least 1", self.scenes
        )
        checks.require(
            self.every is None or self.every >= 1, "--every", "be at least 1", self.every
        )
        checks.choose("--points", self.points, SOURCES)
        if self.layout is not None:
            checks.choose("--layout", self.layout, LAYOUTS)

    def adapted(self, protocol: Protocol) -> Protocol:
        """The protocol with what the options say of its data.

        Raises:
            UsageError: they say something where the protocol has said it.
        """
        given: dict[str, Any] = {"layout": self.layout, "split": self.split}
        given["views"] = None if self.every is None else Every(self.every)
        said = {name: value for name, value in given.items() if value is not None}
        for name in said if protocol.layout is not None else ():
            flag = "--every" if name == "views" else f"--{name}"
            checks.fail(flag, f"be left out: {protocol.name} says it", said[name])
        return replace(protocol, **said)


class Trial(Sitting):
    """One model, one protocol, one folder, one file of results that is gone on with."""

    advice: ClassVar[Mapping[str, str | None]] = {MEMORY: None}

    def __init__(
        self,
        engine: Engine,
        protocol: Protocol,
        folder: Path,
        options: TrialOptions | None = None,
        *,
        output: Path | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        """Find the scenes and check them; compute nothing.

        Args:
            engine: with the model, on its device; points from the head
                (:func:`vggt3.evaluation.examine.exam_engine`).
            protocol: what is scored, and how.
            folder: the data.
            options: how the model takes part.
            output: a JSON file; scenes that it holds already are not computed again.
            origin: noted in the file (the command, …).

        Raises:
            DataError: data of another layout, or without what the protocol needs.
            UsageError: an ``output`` of another model or protocol, or pictures that cannot be.
        """
        self.engine, self.options = engine, options or TrialOptions()
        self.protocol = protocol = self.options.adapted(protocol)
        self._check_pictures()
        found = protocol.find(folder)
        self.missing = max(0, len(protocol.scenes) - len(found))
        """The protocol's scenes that the folder does not have."""
        checked = protocol.checked(found[: self.options.scenes])
        self.scenes = {scene.name: scene for scene in checked}
        self.tasks: list[Task] = [(protocol.name, name) for name in self.scenes]
        self.long_side = self.options.long_side or engine.model.config.long_side
        about = {
            "exam": f"{protocol.name} {protocol.digest}",
            "data": str(folder.resolve()),  # names of scenes, such as 000000, are not theirs alone
            "points": self.options.points,
            "long_side": self.long_side,
            "unit": self.unit,
            **identity(engine),
        }
        self.record: Record = open_record(output, about, origin)

    def _check_pictures(self) -> None:
        pictures = self.options.pictures
        if pictures is not None:
            wanted = f"be left out: {self.protocol.name} compares no clouds that could be drawn"
            checks.require(self.protocol.draws, "--pictures", wanted, f"'{pictures}'")
            check_folder(pictures, "--pictures")

    @property
    def unit(self) -> str:
        """Of the data's lengths."""
        units = {scene.unit for scene in self.scenes.values()}
        return units.pop() if len(units) == 1 else ""

    @property
    def notes(self) -> list[str]:
        """What a person should know of the data."""
        notes = [note for scene in self.scenes.values() for note in scene.notes]
        if self.missing:
            whole = len(self.protocol.scenes)
            notes.append(f"{whole - self.missing} of the {whole} scenes of {self.protocol.name}")
        views = self.protocol.views
        if isinstance(views, Strided):
            wanted = views.references + views.support
            short = [scene for scene in self.scenes.values() if len(scene.views) < wanted]
            if short:
                told = f"{len(short)} of {len(self.scenes)} scenes have fewer than {wanted} views"
                notes.append(f"{told}: all of theirs are shown")
        return notes

    @property
    def unscored(self) -> list[str]:
        """Scenes that have been looked at and had nothing known to compare with."""
        rows, counted = self.record.rows, self.protocol.counted
        looked = [(str(task[1]), rows[task].scores) for task in self.tasks if task in rows]
        return [name for name, scores in looked if scores.get(counted) == 0]

    def _scenes(self, tasks: Sequence[Task]) -> Iterator[Scene]:
        return (self.scenes[str(name)] for _, name in tasks)

    def _row(self, name: str, scene: Scene) -> Row:
        start = time.perf_counter()
        scored = self.score(scene)
        return Row(name, scene.name, scored.scores, scored.trivial, time.perf_counter() - start)

    def score(self, scene: Scene) -> Scored:
        """Read a scene, ask the model, compare."""
        chosen = self.protocol.choose(scene)
        answer = self.answer(scene, chosen)
        truth = load_views(
            scene,
            [chosen.views[place] for place in chosen.scored],
            self.long_side,
            self.protocol.needs,
            images=False,
        )
        device = self.engine.device if self.engine.device.type == "cuda" else "cpu"
        sources = SOURCES[self.options.points]
        scored = self.protocol.score(truth, chosen, answer, sources, device)
        self._draw(scene, scored)
        return scored

    def _draw(self, scene: Scene, scored: Scored) -> None:
        """The aligned clouds, where pictures were asked for."""
        if self.options.pictures is None or scored.truth is None:
            return
        limit = getattr(self.protocol, "icp_limit", 0.1)
        for name, cloud in scored.clouds.items():
            stem = f"{self.protocol.name}-{scene.name}-{name}".replace("/", "-")
            cd = f"CD {cloud.errors.chamfer:.3f} {scene.unit}"
            title = f"{scene.dataset} {scene.name}, points from {name}, {cd}"
            place = self.options.pictures / f"{stem}.png"
            draw_errors(place, title, cloud, scored.truth, 2 * limit)

    def answer(self, scene: Scene, chosen: Chosen) -> Answer:
        """What the model says of the chosen views."""
        loaded = load_views(scene, chosen.views, self.long_side)
        return self.protocol.ask(self.engine, loaded, chosen)
