"""``rooms-v1-localise``: a model sits the protocol of :mod:`vggt3.evaluation.localising`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vggt3 import checks
from vggt3.evaluation.localising import (
    ASKED,
    LEAST_AUC,
    MAPPED,
    MOST,
    SCORES,
    SET,
    LocalisationRow,
    localisation_row,
    split,
    summary,
)
from vggt3.evaluation.picture_options import PictureOptions
from vggt3.evaluation.pictures import pictures_for
from vggt3.evaluation.record import Record, Row, Task, identity, open_record
from vggt3.evaluation.rooms import Exam, ExamScene, read_exam
from vggt3.evaluation.sitting import Sitting
from vggt3.evaluation.tables import Table, label, number
from vggt3.inference.scene_engine import SceneEngine
from vggt3.metrics.medians import medians

NAME = "rooms-v1-localise"


@dataclass(frozen=True)
class LocalisationOptions(PictureOptions):
    """How much of the exam, and how its pictures are made."""

    scenes: int | None = None
    """Only the first N of the 32 scenes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        few = self.scenes
        checks.require(few is None or few >= 1, "--scenes", "be at least 1", few)


class LocalisationExam(Sitting):
    """One model, the scenes of v300, one file of results that is gone on with."""

    def __init__(
        self,
        engine: SceneEngine,
        options: LocalisationOptions | None = None,
        exam: Exam | None = None,
        output: Path | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        """Check everything, compute nothing; see :class:`~vggt3.evaluation.examine.Examination`.

        Raises:
            UsageError: pictures that cannot be, or an ``output`` of another model.
        """
        self.engine, self.exam = engine, exam or read_exam()
        options = options or LocalisationOptions()
        chosen = self.exam.choose(SET).scenes[: options.scenes]
        self.tasks = [(NAME, index) for index in chosen]
        self.pictures = pictures_for(self.exam, options, engine.device, len(chosen))
        about = {
            "exam": f"{NAME} {MAPPED} mapped {ASKED} asked {self.exam.digest}",
            "canonical": self.pictures.canonical,
            **identity(engine),
        }
        self.record: Record = open_record(output, about, origin)

    def _scenes(self, tasks: Sequence[Task]) -> Iterator[ExamScene]:
        return self.pictures.each([(SET, int(index)) for _, index in tasks])

    def _row(self, name: str, scene: ExamScene) -> Row:
        start = time.perf_counter()
        mapped, asked = split(len(scene.images))
        found = localisation_row(self.engine, scene, mapped, asked)
        return Row(name, scene.index, found.scores(), {}, time.perf_counter() - start)


def verdict(record: Record) -> Table:
    """Medians over all scenes, and over those that count: whose map is good enough to be asked."""
    rows = [LocalisationRow.of(int(n), row.scores) for n, row in record.of(NAME).items()]
    whole = summary([replace(row, map_auc=100.0) for row in rows])
    counted = summary(rows)
    table = []
    for key in ("map_auc", *list(SCORES)[1:5]):
        value = whole[key]
        if key == "map_auc":
            value = float(medians(torch.tensor([[row.map_auc for row in rows]]).double()))
        score = SCORES[key]
        shown = number(score, value), number(score, counted[key])
        table.append([label(score), *shown])
    for what in ("rotation", "translation"):
        ratios = (number(what, found[f"{what}_ratio"]) for found in (whole, counted))
        table.append([f"queries' {what} error over the map's", *ratios])
    # The target is over the scenes that count: all of them together are not judged.
    why = "no median of both" if counted["counted"] else "no scene counts"
    words = {1.0: "holds", 0.0: "missed"}
    table.append([f"both at most {MOST:g}", "–", words.get(counted["holds"], f"– ({why})")])
    few = f"the {len(rows)} scenes" if len(rows) > 1 else "the scene"
    many = f"{int(counted['counted'])} whose map has AUC@30 ≥ {LEAST_AUC:g}"
    return ["median", f"of {few}", f"of {many}"], table


def paired(record: Record) -> Table:
    """Ratios scene by scene: mean with its interval, and median, of those that count."""
    rows = record.of(NAME).values()
    good = [row for row in rows if row.scores[SCORES["map_auc"]] >= LEAST_AUC]
    table = []
    for some, name in ((list(rows), "all"), (good, "those that count")):
        part = Record(record.about, rows={(row.set, row.scene): row for row in some})
        for what in ("rotation ratio", "translation ratio"):
            cells = ["–", "–"]
            if some:
                found = part.intervals(NAME)[what].told(lambda x: number("ratio", x))
                cells = [found, number("ratio", part.medians(NAME).get(what, math.nan))]
            table.append([f"{label(what)}, {name}", *cells, str(len(some))])
    return ["paired by scene", "mean [95 % interval]", "median", "scenes"], table


_SHORT = ("map AUC", "map °", "map m", "query °", "query m", "ratio °", "ratio m", "conf.")
HEADS = dict(zip(SCORES.values(), _SHORT, strict=True))
"""Scores that are shown scene by scene, and their heads where a screen is 80 columns wide."""
