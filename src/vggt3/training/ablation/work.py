"""The rows of an ablation, one after the other: train, sit the exam, take the time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vggt3 import checks
from vggt3.evaluation.examine import Examination, ExamOptions, exam_engine, open_examined
from vggt3.evaluation.picture_options import PictureOptions
from vggt3.evaluation.record import Task
from vggt3.evaluation.rooms import Exam, read_exam
from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice
from vggt3.training.ablation import fits
from vggt3.training.ablation.fits import Fit, Scenery
from vggt3.training.ablation.folder import MOST_BYTES, SHIPPED, Fitted, Folder
from vggt3.training.ablation.keys import Keys
from vggt3.training.ablation.options import Leg
from vggt3.training.ablation.settings import Ablation, RowSettings
from vggt3.training.ablation.times import timed
from vggt3.training.ablation.turns import turn

Say = Callable[[str], None]
Rows = tuple[tuple[str, RowSettings], ...]


@dataclass(frozen=True)
class Unit:
    """One training and the rows that it serves."""

    fit: Fit
    rows: Rows
    """Key and row; rows that are the same but for their names have one key."""


@dataclass
class Work:
    """An ablation, its folder, and what of it is done."""

    ablation: Ablation
    folder: Folder
    run: RunOptions = field(default_factory=RunOptions)
    pictures: PictureOptions = field(default_factory=PictureOptions)
    leg: Leg = field(default_factory=Leg)
    exam: Exam = field(default_factory=read_exam)
    say: Say = lambda text: None
    origin: dict[str, Any] = field(default_factory=dict)
    """Noted in every file of scores: the command."""

    def __post_init__(self) -> None:
        """Check everything, compute nothing.

        Raises:
            InputError: an unknown backend, option, set or backbone; a folder of something else.
        """
        self.device = self.run.resolve_device()
        fits_here = self.device.type == "cuda" or not self.pictures.fast_pictures
        told = "be used with a CUDA device"
        checks.require(fits_here, "--fast-pictures", told, self.device)
        self.scenery = Scenery.of(self.ablation.training)
        self.keys = Keys(self.ablation, self.scenery.data().described)
        for row in self.ablation.rows:
            self.keys.check(row)
        self.examinations = self._examinations()
        self.tasks: list[Task] = [t for o in self.examinations for t in o.tasks(self.exam)]
        sets = [self.exam.choose(name).config for name in self.ablation.exam.scenes]
        self.sizes = {config.views: config.size for config in sorted(sets, key=lambda c: c.views)}
        """Views of a scene → height and width, for every set of the exam."""
        self.units = self._units()
        self.began = time.monotonic()
        self.failed: list[str] = []

    @property
    def about(self) -> dict[str, Any]:
        """What every row's scores depend on beside the row: equal for all of a table."""
        return {
            "exam": f"{self.exam.name} {self.exam.digest}",
            "canonical": not self.pictures.fast_pictures,
            "points": self.ablation.exam.points,
            "backbone": self.keys.backbone.fingerprint,
            "precision": str(self.run.resolve_dtype(self.device)).removeprefix("torch."),
            "device": self.device.type,
        }

    def match(self) -> None:
        """Hold a folder of any machine to this ablation's exam and backbone.

        Raises:
            InputError: no ablation's folder, or of another exam, cloud or backbone.
        """
        self.folder.hold({key: self.about[key] for key in ("exam", "points", "backbone")})

    @property
    def mine(self) -> list[Unit]:
        """This process's share."""
        number, of = self.leg.share
        return self.units[number - 1 :: of]

    def done(self, unit: Unit) -> bool:
        """Whether all rows of a training are complete."""
        return self._are_done(unit, unit.rows)

    def _are_done(self, unit: Unit, rows: Rows) -> bool:
        return any(
            all(self.complete(key, fitted) for key, _ in rows) for fitted in self.fitted(unit)
        )

    def complete(self, key: str, fitted: Fitted) -> bool:
        """Whether a row has all its scores."""
        if self.folder.figures(key, fitted.tensors) is None:
            return False
        scored = self.folder.scores(key, fitted.tensors)
        return all(task in scored for task in self.tasks)

    def fitted(self, unit: Unit) -> list[Fitted]:
        """The trainings that a unit has, the furthest first."""
        found = self.folder.fits(unit.fit.key) if unit.fit.trained else [SHIPPED]

        def far(fitted: Fitted) -> tuple[int, int, str]:
            whole = sum(self.complete(key, fitted) for key, _ in unit.rows)
            scored = sum(len(self.folder.scores(key, fitted.tensors)) for key, _ in unit.rows)
            return -whole, -scored, fitted.tensors

        return sorted(found, key=far)

    def do(self) -> bool:
        """Compute what is not there; False where the time ended it. Every scene's scores and
        every training is on disk before the next is begun; a training that fails, or one of whose
        rows does, is said, and the others go on."""
        self.folder.open(self.about)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device.index or 0)  # where kernels of our own are launched
        finished = self.leg.times == "only" or self._rows()
        timed = self.leg.times == "none" or self._time()
        return finished and timed

    def _rows(self) -> bool:
        """Train and score; rows that share a training with another come when all have trained."""
        finished = True
        for all_rows in (False, True):
            for number, unit in enumerate(self.mine, 1):
                rows = unit.rows if all_rows else unit.rows[:1]
                if self._are_done(unit, rows) or unit.fit.row.name in self.failed:
                    continue
                names = ", ".join(row.name for _, row in rows)
                self.say(f"{number}/{len(self.mine)} {names}")
                with self._forgiving(unit.fit.row):
                    finished &= self._do(unit, rows)
                self._free()  # not within: there what failed is still held
                if not self._left(0):
                    return False
        return finished

    def _time(self) -> bool:
        """Take the times that are not there, when nothing of this process's is left to train."""
        if self.ablation.exam.repeat == 0:
            return True
        for key, row in [(self.keys.time(r), r) for unit in self.mine for _, r in unit.rows]:
            if self.folder.times(key) is not None:
                continue
            if not self._left(0):
                return False
            repeat = self.ablation.exam.repeat
            with self._forgiving(row):
                found = timed(row, self.ablation.weights, self.sizes, repeat, self.run)
                self.folder.add_times(row.name, key, found)
            self._free()
        return True

    @contextmanager
    def _forgiving(self, row: RowSettings) -> Iterator[None]:
        """What fails with one row is said, and the others go on."""
        try:
            yield
        except (checks.InputError, RuntimeError) as error:
            if "CUDA error" in str(error):  # nothing runs on the device after that
                raise
            self.failed.append(row.name)
            known = isinstance(error, checks.InputError | torch.OutOfMemoryError)
            kind = "" if known else f"{type(error).__name__}: "
            self.say(f"  failed: {kind}{str(error).partition(chr(10))[0]}")

    def _do(self, unit: Unit, rows: Rows) -> bool:
        """Train where there is nothing to score, score what is not scored; False as :meth:`do`."""
        while not self._are_done(unit, rows):
            fitted = next((f for f in self.fitted(unit) if f.adapter or f is SHIPPED), None)
            if fitted is None:
                with turn(self.device) if self.leg.take_turns else nullcontext():
                    if not self._left(self._longest()):
                        return False
                    fitted = self._train(unit)
            for key, row in rows:
                if self.complete(key, fitted):
                    continue
                engine = self._engine(row, fitted)
                if engine is None:
                    break
                if not self._score(key, row, fitted, engine):
                    return False
        for fitted in self.fitted(unit) if self.done(unit) else ():
            self._tidy(fitted.adapter)
        return True

    def _tidy(self, adapter: Path | None) -> None:
        """Remove weights that no row waits for; another process may have done so."""
        if adapter is None:
            return
        with suppress(FileNotFoundError):
            if not (self.leg.keep_adapters and adapter.stat().st_size <= MOST_BYTES):
                adapter.unlink()

    def _train(self, unit: Unit) -> Fitted:
        draft = self.folder.draft
        facts = fits.train(unit.fit, self.ablation, self.scenery, self.device, draft)
        facts |= self.origin
        fitted = self.folder.add_fit(unit.fit.row.name, unit.fit.key, draft, facts)
        told = f"{facts['steps']} steps, {facts['scenes']} scenes in {facts['seconds']} s"
        self.say(f"  trained: {told}" + (f"; {facts['problem']}" if facts["problem"] else ""))
        self._free()
        return fitted

    def _score(self, key: str, row: RowSettings, fitted: Fitted, engine: Engine) -> bool:
        began = time.monotonic()
        part = self.folder.part(row.name, key, fitted.tensors)
        known = self.folder.scores(key, fitted.tensors)
        for options in self.examinations:
            work = Examination(engine, options, self.exam, part, {**self.origin, "row": row.name})
            work.record.rows.update(known)
            with closing(work.rows()) as rows:  # type: ignore[type-var]
                for found in rows:
                    known[found.set, found.scene] = found
                    if not self._left(0):
                        return False
        learned = {"parameters": self._parameters(engine, row), "name": row.name}
        figures = {**learned, "seconds": time.monotonic() - began}
        self.folder.add_figures(row.name, key, fitted.tensors, figures)
        self.say(f"  scored: {row.name}, {len(known)} scenes in {figures['seconds']:.0f} s")
        return True

    def _engine(self, row: RowSettings, fitted: Fitted) -> Engine | None:
        """The row's model; None where another process has completed the rows of these weights and
        removed them."""
        choice = ModelChoice(self.ablation.weights, None, row.attention, row.examined)
        if fitted.adapter is not None:
            # The file has the row's options; a schedule's too, layer by layer.
            inference = dict(row.inference)
            choice = ModelChoice(self.ablation.weights, str(fitted.adapter), None, inference)
        try:
            return exam_engine(open_examined(choice, self.device).model, self.run)
        except checks.DataError:
            if fitted.adapter is None or fitted.adapter.exists():
                raise
            return None

    def _parameters(self, engine: Engine, row: RowSettings) -> int:
        """That learned: the global attention's, unless it is as it ships."""
        layers = range(engine.model.config.layers if row.train else 0)
        attns = [engine.model.aggregator.block(layer).attn for layer in layers]
        return sum(p.numel() for attn in attns for p in attn.parameters())

    def _examinations(self) -> list[ExamOptions]:
        base = ExamOptions(
            points=self.ablation.exam.points,  # type: ignore[arg-type]
            cache=self.pictures.cache,
            workers=self.pictures.workers,
            fast_pictures=self.pictures.fast_pictures,
        )
        scenes = self.ablation.exam.scenes.items()
        return [replace(base, set=name, scenes=count) for name, count in scenes]

    def _units(self) -> list[Unit]:
        found: dict[str, Unit] = {}
        for row in self.ablation.rows:
            key = self.keys.fit(row)
            unit = found.setdefault(key, Unit(Fit(row, key), ()))
            rows = dict(unit.rows)
            rows.setdefault(self.keys.row(row), row)
            found[key] = replace(unit, rows=tuple(rows.items()))
        return list(found.values())

    def _left(self, seconds: float) -> bool:
        """Whether so much time is left of what was given."""
        if self.leg.minutes is None:
            return True
        return time.monotonic() - self.began + seconds <= 60 * self.leg.minutes

    def _longest(self) -> float:
        """Seconds that a training may take, as far as is known."""
        done = [f for unit in self.units for f in self.folder.fits(unit.fit.key)]
        known = [float(fitted.facts["seconds"]) for fitted in done]
        return max([self.ablation.training.seconds, *known])

    def _free(self) -> None:
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
