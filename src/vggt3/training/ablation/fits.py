"""One training of an ablation: which, and how it is made with the pieces of ``vggt3 fit``."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from vggt3 import checks
from vggt3.attention.registry import LayerSpec, options_of, plan_layers
from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.evaluation.benchmark.machine import device_name
from vggt3.evaluation.record import source_version
from vggt3.model import weights_saving
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel, same_tensors, start_model
from vggt3.model.weight_files import Header, read_header
from vggt3.training import compiling
from vggt3.training.ablation.settings import Ablation, RowSettings, TrainingSettings
from vggt3.training.callbacks import Deadline
from vggt3.training.cli import TRAINER
from vggt3.training.data import ProceduralData
from vggt3.training.fit import Fitting
from vggt3.training.keeping import Lines
from vggt3.training.module import NotFinite

EXAM_SWEEPS = 2
"""What ``auto`` sweeps are in the exam: scenes have fewer than 1000 views."""
ALIKE = ("compile", "record", "checkpointing", "workers", "val_recipe", "val_batches", "val_seed")
"""Settings of how a step is computed, not of what it computes: they make no other training."""

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Fit:
    """One training, which rows that differ in inference alone share."""

    row: RowSettings
    """The first of them: its inference does not matter."""
    key: str
    """Of all that the trained weights depend on."""

    @property
    def trained(self) -> bool:
        """False for an adapter that is taken as it ships."""
        return self.row.train


def spelled(specs: tuple[LayerSpec, ...]) -> list[Any]:
    """Backends and all their options, the defaults too: equal for layers that are equal."""
    found = []
    for spec in specs:
        defaults = {name: p.default for name, p in options_of(spec.name).items()}
        found.append([spec.name, {**defaults, **dict(spec.options)}])
    return found


def hashed(data: Any) -> str:
    """Ten hexadecimal digits that stand for plain data."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class Keys:
    """What makes two trainings, or two rows, the same."""

    def __init__(self, ablation: Ablation, backbone: Header, scenes: str) -> None:
        """``scenes`` says in words what is learned from."""
        self.config, self.fingerprint = backbone.model, backbone.fingerprint
        training = asdict(ablation.training)
        del training["report_every"]
        training["data"].pop("textures")
        for group in ("data", "learning"):
            training[group] = {k: v for k, v in training[group].items() if k not in ALIKE}
        self.training = {**training, "scenes": scenes}

    def specs(self, row: RowSettings, examined: bool = True) -> tuple[LayerSpec, ...]:
        """Each layer's backend and options, in the exam or in training.

        Raises:
            UsageError: a backend or option that does not exist; says which row's.
        """
        try:
            options = row.examined if examined else row.options
            return plan_layers(row.attention, options, self.config.layers)
        except checks.UsageError as error:
            raise checks.UsageError(f"row '{row.name}': {error}") from error

    def check(self, row: RowSettings) -> None:
        """Hold a row to its backends before anything is trained.

        Raises:
            UsageError: a value that a backend refuses, or an option that cannot wait for the exam,
                since the trained tensors depend on it.
        """
        pairs = zip(self.specs(row, False), self.specs(row), strict=True)
        for before, after in dict.fromkeys(pairs):
            try:
                same = same_tensors(before, after, self.config.width, self.config.heads)
            except checks.UsageError as error:
                raise checks.UsageError(f"row '{row.name}': {error}") from error
            told = "leave the trained tensors as they are (else it belongs into options)"
            checks.require(same, f"inference of row '{row.name}'", told, row.inference)

    def fit(self, row: RowSettings) -> str:
        """Of the training that a row needs."""
        training = self.training if row.train else None
        return hashed([self.fingerprint, spelled(self.specs(row, False)), row.start, training])

    def row(self, row: RowSettings) -> str:
        """Of the row itself."""
        specs = spelled(self.specs(row))
        for _, options in specs:
            if options.get("sweeps") == "auto":
                options["sweeps"] = EXAM_SWEEPS
        return hashed([self.fit(row), specs])


@dataclass(frozen=True)
class Scenery:
    """What every row learns from; photos for surfaces are read once."""

    look: ProceduralConfig
    bank: Bank | None
    settings: TrainingSettings

    @classmethod
    def of(cls, settings: TrainingSettings) -> Scenery:
        """Read what the settings name."""
        look, textures = settings.data.dressed()
        return cls(look, None if textures is None else textures.bank, settings)

    def data(self) -> ProceduralData:
        """The same scenes in the same order for each training."""
        return ProceduralData(self.settings.data.counts(), self.look, self.bank)


class _Log(Lines):
    """Lines that go to a file alone: a table of many rows has enough of its own."""

    def say(self, line: str) -> None:
        """Keep a line."""
        self.keep(line)


def train(
    fit: Fit,
    ablation: Ablation,
    scenery: Scenery,
    device: torch.device,
    draft: Path,
) -> dict[str, Any]:
    """Train one adapter into the file ``draft``; returns what to say of it.

    The steps, the scenes and the random numbers are those of ``vggt3 fit`` with these settings.
    Where the loss stops being finite, the weights from before that step are kept and it is said.

    Raises:
        InputError: settings that cannot be, no softmax adapter to begin from.
    """
    row, settings = fit.row, ablation.training
    choice = ModelChoice(ablation.weights, None, row.attention, dict(row.options))
    choice = replace(choice, seed=settings.seed)
    loaded = start_model(choice, scratch=row.start == "scratch")
    learning = settings.learning
    if device.type != "cuda":
        learning = replace(learning, compile=False, record=False)
    module = Fitting(loaded, learning, settings.optimizer, settings.loss, settings.seed)
    log = draft.with_suffix(".log")
    lines = _Log(settings.report_every, log)
    # The deadline decides first whether a step is the last, and the others act on it.
    callbacks: list[Callback] = [Deadline(settings.seconds)] if settings.seconds > 0 else []
    began, problem = time.monotonic(), None
    try:
        with _as_before():
            trainer = _trainer(settings, device, [*callbacks, lines])
            try:
                trainer.fit(module, scenery.data())
            except NotFinite as error:
                problem = str(error)
            except SystemExit as stop:
                if stop.code != 1:
                    raise
                raise KeyboardInterrupt from None  # what Lightning makes of Ctrl-C
        told = _told(module, loaded, trainer, device, time.monotonic() - began)
        told |= {"scenes": lines.scenes, "problem": problem, "log": log.read_text("utf-8")}
    finally:
        log.unlink(missing_ok=True)
    weights_saving.save_adapter(draft, loaded.model, backbone=loaded.fingerprint, record=told)
    return {**told, "content": read_header(draft).content}


def _trainer(
    settings: TrainingSettings, device: torch.device, callbacks: list[Callback]
) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")
    on_gpu = device.type == "cuda"
    usual: dict[str, Any] = {**TRAINER, "enable_progress_bar": False}
    return Trainer(
        **usual,
        accelerator="gpu" if on_gpu else device.type,
        devices=[device.index or 0] if on_gpu else 1,
        precision="bf16-mixed" if on_gpu else "32-true",
        benchmark=on_gpu,
        max_steps=settings.steps,
        limit_val_batches=0,
        logger=False,
        callbacks=callbacks,
    )


class _as_before:
    """A training sets what makes its steps fast for the whole process: the exam that follows
    must not depend on whether there was one."""

    def __enter__(self) -> None:
        self.matmul = torch.get_float32_matmul_precision()
        self.benchmark = torch.backends.cudnn.benchmark

    def __exit__(self, *error: object) -> None:
        torch.set_float32_matmul_precision(self.matmul)
        torch.backends.cudnn.benchmark = self.benchmark
        compiling.compiled.cache_clear()
        torch.compiler.reset()  # the next row's graphs are others


def _told(
    module: Fitting, loaded: LoadedModel, trainer: Trainer, device: torch.device, seconds: float
) -> dict[str, Any]:
    learning = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
    return {
        "model": loaded.description,
        "backends": spelled(loaded.model.specs),
        "parameters": learning,
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),
        "learned_from": module.data.described,
        "device": device_name(device),
        "torch": torch.__version__,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **source_version(),
    }
