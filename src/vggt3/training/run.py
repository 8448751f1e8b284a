"""One run of training, from options to files: what every way of starting one calls."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from vggt3 import checks
from vggt3.attention.registry import plan_layers
from vggt3.model.choice import ModelChoice
from vggt3.model.config import preset as preset_of
from vggt3.model.opening import start_model
from vggt3.model.vggt3 import VGGT3
from vggt3.training.callbacks import Deadline, Keep, Profile, Report
from vggt3.training.data import ProceduralData
from vggt3.training.module import Training
from vggt3.training.parts import load_adapter, load_encoder, load_parts


@dataclass(frozen=True)
class RunOptions:
    """How long, and what is kept."""

    steps: int = -1
    """Steps of the run; -1 is until the time is up."""
    seconds: float = 0.0
    """Time of the training from its preparations on, compilation included; saving and the exam at
    the end come after it. 0 is until the steps are done."""
    compiling: int = 0
    """Steps until all is compiled; the learning rate's course is over the time left then."""
    every: int = 50
    """Steps between printed lines."""
    validate_every: int = 0
    """Steps between validations; 0 is one at the end."""
    minutes: float = 2.0
    """Minutes between saved weights."""
    model_seed: int = 0
    """Of the weights that start from random numbers."""
    profile: int = 0
    """Step from which a few are profiled into profile.txt; 0 is none."""
    devices: int = 1
    """GPUs (or processes, without one) that see scenes of their own in each step."""

    def __post_init__(self) -> None:
        checks.require(
            self.steps > 0 or self.seconds > 0, "--steps or --seconds", "be given", "neither"
        )
        checks.require(self.compiling >= 0, "--compiling", "be at least 0", self.compiling)
        timed = self.compiling == 0 or self.seconds > 0
        checks.require(timed, "--compiling", "come with --seconds", "--steps alone")


def make_model(
    preset: str,
    attention: str,
    options: dict[str, Any] | None = None,
    encoder: Path | None = None,
    start: Path | None = None,
    adapter: Path | None = None,
) -> VGGT3:
    """The model to train: a preset, its encoder's weights, and what an earlier run left in the
    folder ``start``; or, where that is a backbone's file, what a fit of it begins with. With an
    ``adapter`` that an earlier run left, or a published one, of whatever backbone."""
    if start is not None and start.is_file():
        choice = ModelChoice(str(start), attention=attention, attention_options=options or {})
        begun = start_model(choice).model.train()
        if adapter is not None:
            load_adapter(begun, adapter)
        return begun
    config = preset_of(preset)
    model = VGGT3(config, plan_layers(attention, options or {}, config.layers))
    if encoder is not None:
        load_encoder(model, encoder)
    if start is not None:
        load_parts(model, start)
    if adapter is not None:
        load_adapter(model, adapter)
    return model


def run(
    module: Training, data: ProceduralData, output: Path, options: RunOptions
) -> dict[str, float]:
    """Train, save into ``output``, and return the scores of the held-out scenes at the end."""
    began = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.backends.cudnn.benchmark = True
    report = Report(options.every, output / "log.txt")
    # The deadline decides first whether a step is the last, and the others act on it.
    callbacks: list[Any] = []
    if options.seconds > 0:
        callbacks.append(Deadline(options.seconds, began, options.compiling))
    callbacks += [report, Keep(output, options.minutes, report)]
    if options.profile:
        callbacks.append(Profile(output / "profile.txt", options.profile))
    trainer = Trainer(
        accelerator="auto",
        devices=options.devices,
        strategy="auto" if options.devices == 1 else "ddp",
        precision="bf16-mixed" if on_gpu else "32-true",
        max_steps=options.steps,
        max_epochs=-1,
        val_check_interval=options.validate_every or None,
        check_val_every_n_epoch=None,
        limit_val_batches=None if options.validate_every else 0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        default_root_dir=output,
    )
    report.say(describe(module))
    trainer.fit(module, data)
    report.say(f"trained for {time.monotonic() - began:.0f} s")
    trainer.limit_val_batches = 1.0
    scores = trainer.validate(module, data, verbose=False)
    return dict(scores[0]) if scores else {}


def describe(module: Training) -> str:
    """A line about the model and what of it learns."""
    model = module.model
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    beside = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("encoder."))
    backends = ", ".join(dict.fromkeys(spec.name for spec in model.specs))
    return (
        f"{model.config.preset}, {backends}: {beside / 1e6:.2f} M parameters beside the encoder, "
        f"{learning / 1e6:.2f} M learn; torch {torch.__version__}, "
        f"python {sys.version.split()[0]}"
    )
