"""A model sits an exam: scene by scene, rows as they are found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.evaluation.error_pictures import draw_errors
from vggt3.evaluation.picture_options import PictureOptions
from vggt3.evaluation.pictures import pictures_for
from vggt3.evaluation.record import Record, Row, Task, identity, open_record
from vggt3.evaluation.rooms import Exam, ExamScene, read_exam
from vggt3.evaluation.scoring import ICP_LIMIT_M, POINTS, AlignedCloud, Predicted, score_scene
from vggt3.evaluation.sitting import Sitting
from vggt3.geometry.projection import unproject
from vggt3.inference.advice import FEWER
from vggt3.inference.collect import Collector
from vggt3.inference.engine import PIXEL_CENTRE, Engine
from vggt3.inference.options import RunOptions
from vggt3.io.staging import check_folder
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel, open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

SWEEPS = 2
"""Of fast weights, unless the caller says otherwise."""


@dataclass(frozen=True)
class ExamOptions(PictureOptions):
    """Which part of the exam, and how its pictures are made."""

    set: str = "v8"
    """Sets, separated by commas: v8, v24, v100, v300, easy, hard, duplicates; or all."""
    scenes: int | None = None
    """Only the first N scenes of each set."""
    points: Literal["both", "depth", "head", "none"] = "both"
    """Clouds that are scored: from depth and camera, the point head's own, both, or none."""
    full_clouds: bool = False
    """Compare all pixels, not 20,000 of a scene; CD and NC then are not the exam's."""
    pictures: Path | None = None
    """A folder for a picture of every scene that is computed: aligned clouds, coloured by
    error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require(
            self.scenes is None or self.scenes >= 1, "--scenes", "be at least 1", self.scenes
        )
        checks.choose("--points", self.points, ("both", "depth", "head", "none"))
        drawn = self.pictures is None or self.points != "none"
        checks.require(drawn, "--pictures", "be left out with --points none", self.pictures)

    def tasks(self, exam: Exam) -> list[Task]:
        """The scenes meant, in order.

        Raises:
            UsageError: a set that does not exist.
        """
        wanted = [name.strip() for name in self.set.split(",")]
        names = list(exam.sets) if wanted == ["all"] else wanted
        sets = [exam.choose(name) for name in dict.fromkeys(names)]
        return [(chosen.name, index) for chosen in sets for index in chosen.scenes[: self.scenes]]


class Examination(Sitting):
    """One model, one exam, one file of results that is gone on with."""

    advice: ClassVar[Mapping[str, str | None]] = {
        **Sitting.advice,
        FEWER: "a --set of fewer views",
    }

    def __init__(
        self,
        engine: Engine,
        options: ExamOptions | None = None,
        exam: Exam | None = None,
        output: Path | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        """Check everything, compute nothing.

        Args:
            engine: with the model, on its device; points from the head (:func:`exam_engine`).
            options: which scenes.
            exam: the one that ships if not given.
            output: a JSON file; scenes that it holds already are not computed again.
            origin: noted in the file (the command, …).

        Raises:
            UsageError: a set that does not exist, or an ``output`` of another model.
        """
        self.engine, self.options = engine, options or ExamOptions()
        self.exam = exam or read_exam()
        self.tasks = self.options.tasks(self.exam)
        if self.options.pictures is not None:
            check_folder(self.options.pictures, "--pictures")
        self.pictures = pictures_for(self.exam, self.options, engine.device, len(self.tasks))
        about = {
            "exam": f"{self.exam.name} {self.exam.digest}",
            "canonical": self.pictures.canonical,
            "points": self.options.points,
            **({"clouds": "all pixels"} if self.options.full_clouds else {}),
            **identity(engine),
        }
        self.record: Record = open_record(output, about, origin)

    def _scenes(self, tasks: Sequence[Task]) -> Iterator[ExamScene]:
        return self.pictures.each([(name, int(index)) for name, index in tasks])

    def _row(self, name: str, scene: ExamScene) -> Row:
        start = time.perf_counter()
        predicted = predict(self.engine, scene, self.options.points)
        device = self.engine.device if self.engine.device.type == "cuda" else "cpu"
        most = None if self.options.full_clouds else POINTS
        draw = None if self.options.pictures is None else partial(self._draw, name, scene.index)
        scores, trivial = score_scene(predicted, scene, device, most, draw)
        return Row(name, scene.index, scores, trivial, time.perf_counter() - start)

    def _draw(
        self, name: str, index: int, clouds: Mapping[str, AlignedCloud], truth: Tensor
    ) -> None:
        assert self.options.pictures is not None
        for source, cloud in clouds.items():
            title = f"{self.exam.name} {name} scene {index}, points from {source}"
            title += f", CD {cloud.errors.chamfer:.3f} m"
            place = self.options.pictures / f"{self.exam.name}-{name}-{index:06d}-{source}.png"
            draw_errors(place, title, cloud, truth, 2 * ICP_LIMIT_M)


def predict(engine: Engine, scene: ExamScene, points: str = "both") -> Predicted:
    """What a model says of a scene's photos. ``engine`` gives the point head's points."""
    sink = Collector()
    engine.run(Views.from_tensor(scene.images), sink)
    assert sink.found is not None
    cameras, views = sink.found, [sink.views[n] for n in range(len(scene.images))]
    depth = torch.stack([view.depth for view in views])
    clouds = {}
    if points in ("both", "depth"):
        where = cameras.intrinsics, cameras.camera_from_world
        clouds["depth"] = unproject(depth, *where, PIXEL_CENTRE)
    if points in ("both", "head"):
        clouds["head"] = torch.stack([view.points for view in views])
    return Predicted(cameras.camera_from_world, depth, clouds)


def exam_engine(model: VGGT3, options: RunOptions | None = None) -> Engine:
    """An engine that gives depth and the point head's points."""
    return Engine(model, replace(options or RunOptions(), points_from="head"))


def open_examined(choice: ModelChoice, device: torch.device | str = "cpu") -> LoadedModel:
    """The model that is meant, its fast weights at 2 sweeps unless ``choice`` says otherwise."""
    loaded = open_model(choice, device)
    stored = {dict(spec.options).get("sweeps", "auto") for spec in loaded.model.specs}
    if "sweeps" in choice.attention_options or stored <= {"auto", SWEEPS}:
        return loaded  # auto is 2 below 1000 views
    given = {**choice.attention_options, "sweeps": SWEEPS}
    return open_model(replace(choice, attention_options=given), device)
