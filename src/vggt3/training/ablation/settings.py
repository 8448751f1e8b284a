"""What an ablation consists of: one YAML file, whose every key is checked before anything runs."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from vggt3 import checks
from vggt3.losses import LossWeights
from vggt3.training import settings as spelling
from vggt3.training.module import LearningOptions
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.scenes import SceneOptions

SCORES = ("auc@30", "cd", "nc", "absrel")
"""What a row is compared by."""
BEGINNINGS = ("softmax", "scratch")


@dataclass(frozen=True)
class RowSettings:
    """One row of the table."""

    name: str
    """What the table calls it."""
    attention: str
    """Backend of the global attention."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the backend, in training and afterwards; ``schedule`` is one of them."""
    start: str = "softmax"
    """softmax: from the softmax adapter's qkv and proj. scratch: from random ones."""
    train: bool = True
    """False: the adapter as it ships, for comparison."""
    inference: dict[str, Any] = field(default_factory=dict)
    """Options that hold in the exam alone, such as sweeps (2 unless given here). Rows that differ
    in nothing else share one training."""
    paper: dict[str, float] = field(default_factory=dict)
    """The paper's figures of this row: auc@30, cd, nc."""

    def __post_init__(self) -> None:
        checks.require(bool(self.name.strip()), "a row's name", "be a text", repr(self.name))
        checks.choose(f"start of row '{self.name}'", self.start, BEGINNINGS)
        for score in self.paper:
            checks.choose(f"paper's figure of row '{self.name}'", score, SCORES)

    @property
    def examined(self) -> dict[str, Any]:
        """The options that hold in the exam; sweeps of the training do not."""
        return {**{k: v for k, v in self.options.items() if k != "sweeps"}, **self.inference}


@dataclass(frozen=True)
class TrainingSettings:
    """How every row is trained: on the same scenes in the same order."""

    steps: int = -1
    """Steps of a row; -1 is until the time is up."""
    seconds: float = 0.0
    """Time of a row's training after its first step, which compiles what no row before it has; 0 is
    until the steps are done."""
    seed: int = 0
    """Of what begins from random numbers."""
    report_every: int = 100
    """Steps between lines in a training's log."""
    data: SceneOptions = field(default_factory=SceneOptions)
    """Which scenes."""
    learning: LearningOptions = field(default_factory=LearningOptions)
    """How a step is computed. Without a GPU nothing is compiled or recorded."""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    """How the weights move."""
    loss: LossWeights = field(default_factory=LossWeights)
    """The loss."""

    def __post_init__(self) -> None:
        told = self.steps > 0 or self.seconds > 0
        checks.require(told, "training.steps or training.seconds", "be above 0", "neither")
        checks.require(self.seed >= 0, "training.seed", "be at least 0", self.seed)
        given = self.learning.train
        checks.require(given == "adapter", "training.learning.train", "be adapter", given)


@dataclass(frozen=True)
class ExamSettings:
    """What every row is scored on."""

    scenes: dict[str, int] = field(default_factory=lambda: {"v8": 64})
    """Sets of rooms-v1, and how many of each one's scenes, from the first on."""
    points: str = "depth"
    """Clouds that CD and NC are of: depth, head, both or none."""
    repeat: int = 3
    """Timed runs for each number of views, after one to warm up; 0 times nothing."""

    def __post_init__(self) -> None:
        checks.require(bool(self.scenes), "exam.scenes", "name a set", "none")
        for name, count in self.scenes.items():
            checks.require(count >= 1, f"exam.scenes.{name}", "be at least 1", count)
        checks.choose("exam.points", self.points, ("depth", "head", "both", "none"))
        checks.require(self.repeat >= 0, "exam.repeat", "be at least 0", self.repeat)


@dataclass(frozen=True)
class Ablation:
    """A question, as rows of one table."""

    rows: list[RowSettings]
    """In the order of the table."""
    training: TrainingSettings
    """How every row is trained."""
    exam: ExamSettings = field(default_factory=ExamSettings)
    """What every row is scored on."""
    weights: str | None = None
    """The frozen backbone: a file, a folder, or the name of one that ships (default: small)."""
    against: str = "softmax"
    """Name of the row that all others are compared with, scene by scene."""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        checks.require(bool(names), "rows", "hold a row", "none")
        twice = [name for n, name in enumerate(names) if name in names[:n]]
        checks.require(not twice, "the rows' names", "differ", f"'{', '.join(twice)}' twice")
        checks.choose("against", self.against, names)


def read(path: Path) -> Ablation:
    """The ablation in a YAML file.

    Raises:
        UsageError: no such file, an unknown key (names the nearest), a value of another type.
    """
    name = f"'{path}'"
    return parse(spelling.read_yaml(path, name), name)


def parse(content: Mapping[str, Any], name: str = "the ablation") -> Ablation:
    """The ablation in plain data.

    Raises:
        UsageError: as :func:`read`.
    """
    _check_rows(content.get("rows"), name)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Ablation, None, fail_untyped=True)
    known = spelling.Names(parser.get_defaults().keys())
    for key in spelling.leaves(content, known):
        within = any(key == f or key.startswith(f"{f}.") for f in ("rows", "exam.scenes"))
        if not (within or known.has(key)):
            close = checks.nearest(key, known.keys)
            hint = f" (did you mean '{close}'?)" if close else ""
            checks.fail(f"a key of {name}", "be a setting of an ablation", f"'{key}'{hint}")
    for key in ("rows", "training"):
        checks.require(key in content, name, f"have {key}", "none")
    try:
        parsed = parser.parse_object(copy.deepcopy(dict(content)))
        build = getattr(parser, "instantiate", None) or parser.instantiate_classes
        return Ablation(**vars(build(parsed)))
    except argparse.ArgumentError as error:
        told = spelling.reworded(error.message or str(error)).removeprefix("--")
        raise checks.UsageError(f"{name}: {told}") from error


def _check_rows(rows: Any, name: str) -> None:
    """Words for what is wrong within the list, which the parser would only show as a whole."""
    if rows is None:
        return
    checks.require(isinstance(rows, list), f"rows of {name}", "be a list", type(rows).__name__)
    known = [f.name for f in fields(RowSettings)]
    for number, row in enumerate(rows, 1):
        about = f"row {number} of {name}"
        checks.require(isinstance(row, Mapping), about, "hold settings", repr(row))
        for key in row:
            checks.choose(f"a key of {about}", str(key), known)
        for key in ("name", "attention"):
            checks.require(isinstance(row.get(key), str), about, f"have a {key}", row.get(key))
