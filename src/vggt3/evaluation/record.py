"""The file of a run: who was examined, and every score of every scene."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vggt3 import __version__, checks
from vggt3.evaluation.intervals import Interval, interval, paired
from vggt3.evaluation.scoring import Scores
from vggt3.files import replacing
from vggt3.inference.engine import Engine
from vggt3.io.staging import check_writable
from vggt3.model.vggt3 import VGGT3
from vggt3.model.weights import fingerprint

FORMAT = "vggt3 exam 1"
Task = tuple[str, int | str]
"""A set's or protocol's name, and a scene's index or name."""
CLOUDS = {"both": "depth and camera", "depth": "depth and camera", "head": "point head"}
"""--points, and what the scores that are called cd and nc are then of."""
SAVE_SECONDS = 5.0
"""A killed run loses what it found since it last wrote."""


@dataclass(frozen=True)
class Row:
    """One scene's scores."""

    set: str
    """A set of an exam, or a protocol."""
    scene: int | str
    """Its index in the set, or its name in the data."""
    scores: Scores
    trivial: Scores
    """The same of identity rotations and sideways steps, as far as it has an answer."""
    seconds: float
    """The model's and the scoring's, rendering left out."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Command, commit, torch, weights of the run that computed it."""

    def to_data(self, origin: int = 0) -> dict[str, Any]:
        """Plain data; nan becomes null. ``origin``: its place in the file's list."""
        return {
            "scene": self.scene,
            "origin": origin,
            "seconds": round(self.seconds, 3),
            "scores": _plain(self.scores),
            "trivial": _plain(self.trivial),
        }


def _plain(scores: Scores) -> dict[str, float | None]:
    return {k: round(v, 6) if math.isfinite(v) else None for k, v in scores.items()}


def _scores(data: Mapping[str, float | None]) -> Scores:
    return {str(k): math.nan if v is None else float(v) for k, v in data.items()}


@dataclass
class Record:
    """Rows by set and scene, and what they are of."""

    about: dict[str, Any]
    """Exam and model: two runs with equal ``about`` give equal scores."""
    path: Path | None = None
    rows: dict[Task, Row] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    """Command, commit, torch of this run: of the rows that it adds, not of those that are there."""
    earlier: list[dict[str, Any]] = field(default_factory=list)
    """Origins in the file's order, as it was read."""
    summarised: bool = False
    """Whether the file, as it was read or written last, has means over its rows."""
    _written: float = field(default=0.0, repr=False)

    def add(self, row: Row) -> Row:
        """Take a row, and write the file now and then; returns it with this run's origin, and
        rounded as the file has it: a run that was stopped has the means of one that was not."""
        scores, trivial = _scores(_plain(row.scores)), _scores(_plain(row.trivial))
        row = replace(row, scores=scores, trivial=trivial, origin=self.origin)
        self.rows[row.set, row.scene] = row
        if time.monotonic() - self._written > SAVE_SECONDS:
            self.save()
        return row

    def save(self, *, summary: bool = False) -> None:
        """Write the file, whole or not at all; nothing where there is no path."""
        if self.path is None:
            return
        origins = self.origins
        content: dict[str, Any] = {"format": FORMAT, "about": self.about, "origins": origins}
        if summary:
            content["summary"] = {name: self._means(name) for name in self.sets}
        content["sets"] = {
            name: [row.to_data(origins.index(dict(row.origin))) for row in self.of(name).values()]
            for name in self.sets
        }
        _write(self.path, content)
        self._written, self.summarised = time.monotonic(), summary

    @property
    def origins(self) -> list[dict[str, Any]]:
        """Of the rows: those of the file in its order, then this run's if it computed any."""
        used: list[dict[str, Any]] = []
        for row in self.rows.values():
            if row.origin not in used:
                used.append(dict(row.origin))
        known = [origin for origin in self.earlier if origin in used]
        return known + [origin for origin in used if origin not in known]

    @property
    def unit(self) -> str:
        """Of the scores that are lengths."""
        return str(self.about.get("unit", "m"))

    @property
    def sets(self) -> list[str]:
        """Names of the sets that have rows."""
        return list(dict.fromkeys(name for name, _ in self.rows))

    def of(self, name: str) -> dict[int | str, Row]:
        """A set's rows by scene."""
        return {scene: row for (owner, scene), row in self.rows.items() if owner == name}

    def only(self, tasks: Sequence[Task]) -> Record:
        """The rows of ``tasks`` alone, in their order, without a file."""
        rows = {task: self.rows[task] for task in tasks if task in self.rows}
        return Record(self.about, rows=rows, earlier=self.earlier)

    def intervals(self, name: str, *, trivial: bool = False) -> dict[str, Interval]:
        """Mean and 95 % interval over a set's scenes, score by score."""
        values = self.values(name, trivial=trivial)
        return {key: interval(found) for key, found in values.items()}

    def medians(self, name: str) -> dict[str, float]:
        """Median over a set's scenes that have a value, score by score."""
        values = {k: [x for x in v if math.isfinite(x)] for k, v in self.values(name).items()}
        return {k: statistics.median(v) if v else math.nan for k, v in values.items()}

    def values(self, name: str, *, trivial: bool = False) -> dict[str, list[float]]:
        """Every score of a set, a value for each scene."""
        rows = [row.trivial if trivial else row.scores for row in self.of(name).values()]
        return {key: [row.get(key, math.nan) for row in rows] for key in rows[0]}

    def _means(self, name: str) -> dict[str, Any]:
        found, medians = {**self.intervals(name)}, self.medians(name)
        found |= {f"trivial {k}": v for k, v in self.intervals(name, trivial=True).items()}
        return {
            key: _plain({"mean": x.mean, "low": x.low, "high": x.high})
            | (_plain({"median": medians[key]}) if key in medians else {})
            | {"scenes": x.count}
            for key, x in found.items()
        }


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_record(path: Path | str) -> Record:
    """The record in a file.

    Raises:
        DataError: not a record of this format.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        # Files from before runs were told apart have one origin, of all rows.
        origins = content["origins"] if "origins" in content else [content["origin"]]
        record = Record(dict(content["about"]), path, earlier=[dict(one) for one in origins])
        record.summarised = "summary" in content
        by_number = dict(enumerate(record.earlier))
        for name, rows in content["sets"].items():
            for row in rows:
                scores, trivial = _scores(row["scores"]), _scores(row["trivial"])
                scene, origin = row["scene"], by_number[row.get("origin", 0)]
                key = (str(name), scene if isinstance(scene, str) else int(scene))
                record.rows[key] = Row(*key, scores, trivial, float(row["seconds"]), origin)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        checks.fail(
            str(path), "be the file of an exam", checks.reason(error), error=checks.DataError
        )
    return record


def open_record(
    path: Path | None, about: dict[str, Any], origin: dict[str, Any] | None = None
) -> Record:
    """A new record, or the one in ``path`` to go on with; ``origin``, beside what versions run, is
    of the rows to come.

    Raises:
        UsageError: the file is of another model, exam or setting (says which), or cannot be made.
        DataError: the file is none of ours.
    """
    origin = {**source_version(), "torch": torch.__version__, **(origin or {})}
    if path is None or not path.exists():
        if path is not None:
            check_writable(path, f"OUT '{path}'")
        return Record(about, path, origin=origin)
    record = read_record(path)
    # What was read went through JSON: tuples are lists there.
    origin = json.loads(json.dumps(origin))
    new = json.loads(json.dumps(about))
    for key in sorted({*new, *record.about}):
        ours, theirs = new.get(key), record.about.get(key)
        checks.require(
            ours == theirs,
            f"OUT '{path}'",
            f"be of the same {key} ({_short(ours)}) to be gone on with, or not exist",
            _short(theirs),
        )
    record.origin = origin
    return record


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


@dataclass(frozen=True)
class Comparison:
    """One score of one set in two runs, over the scenes that both have."""

    set: str
    score: str
    ours: float
    theirs: float
    difference: Interval
    """Ours − theirs, paired by scene."""


def compare(ours: Record, theirs: Record) -> list[Comparison]:
    """Paired differences of every score of every set that both runs have.

    Raises:
        DataError: runs of different exams, pictures, units or sources of points, or without a
            common scene.
    """
    for key in ("exam", "canonical", "clouds"):
        _check_same(key, ours.about.get(key), theirs.about.get(key))
    _check_same("unit", ours.unit, theirs.unit)
    sources = [CLOUDS.get(str(record.about.get("points"))) for record in (ours, theirs)]
    if all(sources):
        _check_same("source of points (--points)", *sources)
    found = []
    for name in ours.sets:
        a, b = ours.of(name), theirs.of(name)
        scenes = [scene for scene in a if scene in b]
        keys = [k for k in (a[scenes[0]].scores if scenes else ()) if k in b[scenes[0]].scores]
        for key in keys:
            one = [a[scene].scores.get(key, math.nan) for scene in scenes]
            two = [b[scene].scores.get(key, math.nan) for scene in scenes]
            both = [(x, y) for x, y in zip(one, two, strict=True) if math.isfinite(x + y)]
            one, two = [x for x, _ in both], [y for _, y in both]
            difference = paired(one, two)
            mean_one, mean_two = (sum(v) / len(v) if v else math.nan for v in (one, two))
            found.append(Comparison(name, key, mean_one, mean_two, difference))
    checks.require(bool(found), "both runs", "share a scene", "none", error=checks.DataError)
    return found


def unlike(ours: Record, theirs: Record) -> list[str]:
    """Lines about what two runs do not share though they can be compared."""
    pairs = ((key, ours.about.get(key), theirs.about.get(key)) for key in ("data", "long_side"))
    return [f"the runs differ in {key}: {a} and {b}" for key, a, b in pairs if a != b]


def _check_same(what: str, one: object, other: object) -> None:
    got = f"{_short(one)} and {_short(other)}"
    checks.require(one == other, "both runs", f"be of one {what}", got, error=checks.DataError)


def identity(engine: Engine) -> dict[str, Any]:
    """What a run's scores depend on, beside the exam: weights, backends, precision, device."""
    model = engine.model
    return {
        "backbone": fingerprint(model.state_dict()),
        "tensors": tensor_digest(model),
        "attention": _layers(model),
        "precision": str(engine.dtype).removeprefix("torch."),
        "device": engine.device.type,
    }


def _layers(model: VGGT3) -> list[str]:
    """A line for every run of layers of one backend and options."""
    specs = [f"{spec.name} {dict(spec.options)}" for spec in model.specs]
    lines, first = [], 0
    for layer, spec in enumerate(specs):
        if layer + 1 == len(specs) or specs[layer + 1] != spec:
            lines.append(f"{first}-{layer}: {spec}")
            first = layer + 1
    return lines


def tensor_digest(model: VGGT3) -> str:
    """SHA-256 of every tensor of a model, adapters and fixed buffers included."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        values = value.detach().float().cpu().contiguous()
        found.update(f"{name}\0{list(values.shape)}\0".encode())
        found.update(values.numpy().tobytes())
    return found.hexdigest()


def source_version() -> dict[str, str]:
    """The package's version, and its commit where it runs from a git checkout of its own."""
    found = {"version": __version__}
    here = Path(__file__).resolve()
    # Tracked there: else it lies in the environment of somebody else's checkout.
    if _git(here.parent, "ls-files", "--error-unmatch", "../__init__.py") is None:
        return found
    commit = _git(here.parent, "rev-parse", "HEAD")
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    if commit:
        found["commit"] = commit + (" with changes" if changed else "")
    return found


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
