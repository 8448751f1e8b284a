"""One training of an ablation: which, and how it is made with the pieces of ``vggt3 fit``."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.evaluation.benchmark.machine import device_name
from vggt3.evaluation.record import source_version
from vggt3.model import weights_saving
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel, start_model
from vggt3.model.weight_files import read_header
from vggt3.training.ablation.keys import spelled
from vggt3.training.ablation.settings import Ablation, RowSettings, TrainingSettings
from vggt3.training.callbacks import Deadline
from vggt3.training.data import ProceduralData
from vggt3.training.defaults import TRAINER
from vggt3.training.fit import Fitting
from vggt3.training.keeping import Lines
from vggt3.training.module import NotFinite
from vggt3.training.teacher import softmax_teacher


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
    teacher = softmax_teacher(ablation.weights) if learning.teacher > 0 else None
    module = Fitting(loaded, learning, settings.optimizer, settings.loss, settings.seed, teacher)
    log = draft.with_suffix(".log")
    lines = _Log(settings.report_every, log)
    # The deadline decides first whether a step is the last, and the others act on it.
    callbacks: list[Callback] = []
    if settings.seconds > 0:
        callbacks.append(Deadline(settings.seconds, after=1))
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
    must not depend on whether there was one. What is compiled stays: most of the next row's graphs
    are the same."""

    def __enter__(self) -> None:
        self.matmul = torch.get_float32_matmul_precision()
        self.benchmark = torch.backends.cudnn.benchmark

    def __exit__(self, *error: object) -> None:
        torch.set_float32_matmul_precision(self.matmul)
        torch.backends.cudnn.benchmark = self.benchmark


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
