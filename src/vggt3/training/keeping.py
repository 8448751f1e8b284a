"""What a fit leaves in its folder, and what it says while it goes on."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from lightning.pytorch.utilities import rank_zero_only

from vggt3 import checks
from vggt3.model import weight_files, weights, weights_saving
from vggt3.training import sharding
from vggt3.training.callbacks import Report
from vggt3.training.fit import Fitting
from vggt3.training.module import NotFinite
from vggt3.training.progress import Bar

LAST = "last.ckpt"
BACKBONE = "backbone.safetensors"
PREDICTIONS = "predictions"
"""The folder of ``vggt3 predict``, in its output."""


class Lines(Report):
    """A :class:`Report` from one process, which also says beforehand how long it will take.

    Where a progress bar is shown, lines stand above it, and those of single steps in the log
    alone.
    """

    bar: Bar | None = None

    @rank_zero_only
    def say(self, line: str) -> None:
        """Print a line now, and keep it."""
        if self.bar is None:
            super().say(line)
        else:
            self.bar.print(line)
            self.keep(line)

    @rank_zero_only
    def tell(self, line: str, means: Mapping[str, float]) -> None:
        """Print a step's line, or show its loss beside the bar."""
        if self.bar is None:
            self.say(line)
        else:
            self.bar.show(means.get("loss", math.nan))
            self.keep(line)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is trained, and on a CPU how long that takes."""
        assert isinstance(pl_module, Fitting)
        learning = sum(p.numel() for p in pl_module.model.parameters() if p.requires_grad)
        everything = sum(p.numel() for p in pl_module.model.parameters())
        self.say(f"{pl_module.loaded.description}; {learning:,} of {everything:,} parameters learn")
        to_do = trainer.max_steps - trainer.global_step
        if pl_module.device.type == "cpu" and trainer.max_steps > 0 and to_do > 0:
            seconds = step_time(pl_module)
            ahead = duration(to_do * seconds)
            self.say(f"about {ahead} ahead: {to_do} steps of {seconds:.1f} s on this CPU")
        super().on_train_start(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores of the test's scenes."""
        self.on_validation_end(trainer, pl_module)


def step_time(module: Fitting) -> float:
    """Seconds of a step, tried on the next step's scenes; leaves nothing behind."""
    data = module.data
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        batch = data.renderer()(data.drawn(module.global_step))
        module.tried(batch).backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    return (time.perf_counter() - began) * module.trainer.accumulate_grad_batches


def duration(seconds: float) -> str:
    """``50 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Files:
    """The files of a fit."""

    folder: Path
    with_backbone: bool
    """Save the backbone too, where the one it started from does not lie in a file."""

    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / LAST

    def adapter(self, module: Fitting) -> Path:
        """The trained attention."""
        if not self.with_backbone:
            return self.folder / "adapter.safetensors"
        names = "+".join(dict.fromkeys(spec.name for spec in module.model.specs))
        return self.folder / f"backbone.{names}.safetensors"

    def all(self, module: Fitting) -> list[Path]:
        """All that a fit would write over."""
        return [self.last(), self.folder / BACKBONE, self.adapter(module)]

    def save(self, trainer: Trainer, module: Fitting) -> None:
        """Write the weights, all processes at once; a file is there whole or not at all."""
        model = sharding.gathered(trainer, module.model)
        if not trainer.is_global_zero:
            return
        record = {"steps": trainer.global_step, "scenes": module.data.described}
        found = module.loaded.fingerprint
        if self.with_backbone:
            found = weights_saving.save_backbone(self.folder / BACKBONE, model, record=record)
        found = found or weights.fingerprint(model.state_dict())
        weights_saving.save_adapter(self.adapter(module), model, backbone=found, record=record)

    def use(self, module: Fitting, given: str | None) -> str:
        """The command line that uses what was saved."""
        options = [f"--adapter {self.adapter(module)}"]
        if self.with_backbone:
            names = dict.fromkeys(spec.name for spec in module.model.specs)
            one = next(iter(names)) if len(names) == 1 else None
            options = [f"--weights {self.folder}"]
            options += [f"--attention {one}"] if one else [f"--adapter {self.adapter(module)}"]
        elif given is not None:
            options.insert(0, f"--weights {given}")
        return f"vggt3 reconstruct PHOTOS -o OUT {' '.join(options)}"


class Keeper(Callback):
    """Saves the checkpoint every few steps and at the end, and the weights at the end."""

    def __init__(self, files: Files, every: int, lines: Lines) -> None:
        checks.require(every >= 1, "--save_every", "be at least 1", every)
        self.files, self.every, self.lines = files, every, lines
        self._saved = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save when it is time, and after the last step; not between the batches of one."""
        if (args[-1] + 1) % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        final = step == trainer.max_steps or trainer.should_stop
        if step != self._saved and (final or step % self.every == 0):
            self.checkpoint(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights."""
        assert isinstance(pl_module, Fitting)
        if trainer.global_step != self._saved:
            self.checkpoint(trainer)
        self.files.save(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Before a step that is not finite all was well: that is kept too."""
        if isinstance(exception, KeyboardInterrupt):
            self.lines.say(f"interrupted at step {trainer.global_step}; {self._kept()}")
        if isinstance(exception, NotFinite):
            self.checkpoint(trainer)
            assert isinstance(pl_module, Fitting)
            self.files.save(trainer, pl_module)

    def _kept(self) -> str:
        last = self.files.last()
        if not last.exists():
            return "no checkpoint was written yet"
        return f"with the same settings, --ckpt_path {last} goes on"

    def checkpoint(self, trainer: Trainer) -> None:
        """Write the checkpoint beside the old one, then in its place."""
        draft = self.files.folder / f".{LAST}"
        try:
            trainer.save_checkpoint(draft)
            if trainer.is_global_zero:
                os.replace(draft, self.files.last())
        except BaseException as error:
            if trainer.is_global_zero:
                _remove(draft)
            if not isinstance(error, OSError):
                raise
            kept = "the earlier one is kept" if self.files.last().exists() else "there is none"
            told = error.strerror or str(error)
            wanted = "be written"
            checks.fail(str(self.files.last()), wanted, f"{told}; {kept}", error=checks.DataError)
        self._saved = trainer.global_step


def _remove(path: Path) -> None:
    """A file, or the folder that spread weights are written as."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class Predictions(BasePredictionWriter):
    """Writes each batch of predictions as ``predictions/batch-NNNN.safetensors``."""

    def __init__(self, folder: Path) -> None:
        super().__init__("batch")
        self.folder = folder / PREDICTIONS

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, *args: Any
    ) -> None:
        """Write one batch, from one process (each has the same scenes)."""
        if trainer.is_global_zero:
            batch_idx = args[2]
            tensors = {name: t.detach().cpu().contiguous() for name, t in prediction.items()}
            weight_files.put(self.folder / f"batch-{batch_idx:04d}.safetensors", tensors, {})
