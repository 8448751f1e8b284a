"""What happens around a step: the deadline, the lines that are printed, the files that are kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vggt3 import checks
from vggt3.files import naming
from vggt3.training.module import NotFinite, Training
from vggt3.training.parts import save_parts

MOST_SKIPPED = 0.1
"""Share of the steps that may have no finite gradient."""
LOOKED_AT = 10
"""Steps that are looked at together, at the least."""
TOGETHER = 20
"""Steps between looks at one clock where there are several processes."""


class Deadline(Callback):
    """Ends a run after ``seconds``, and tells the learning rate how much of it is done.

    The clock runs from ``since`` (of :func:`time.monotonic`): a machine is lent by the minute,
    whoever uses it; if not given, from the end of step ``after``. The learning rate's course is
    over what is left by the end of that step, or from half of the time on: where most of it went
    into compiling, the rate would have fallen before anything was learned.
    """

    def __init__(self, seconds: float, since: float | None = None, after: int = 0) -> None:
        checks.require(seconds > 0, "--seconds", "be positive", seconds)
        self.seconds, self.after = seconds, after
        self.started, self.gone = since, 0.0
        self.ahead: float | None = 0.0 if since is None or after == 0 else None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how much of the time is gone."""
        if self.started is None and trainer.global_step >= self.after:
            self.started = time.monotonic()
        assert isinstance(pl_module, Training)
        if self.ahead is not None and self.seconds > self.ahead:
            part = (self.gone - self.ahead) / (self.seconds - self.ahead)
            pl_module.progress = min(1.0, part)

    def _look(self, trainer: Trainer) -> None:
        """Read the clock; all processes go by one, so that their learning rates and last steps
        are the same."""
        gone = 0.0 if self.started is None else time.monotonic() - self.started
        if trainer.world_size > 1:
            if trainer.global_step % TOGETHER:
                return
            gone = trainer.strategy.broadcast(gone)
        self.gone = gone
        late = trainer.global_step >= self.after or gone >= self.seconds / 2
        if self.ahead is None and late:
            self.ahead = gone

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop once the time is up."""
        self._look(trainer)
        if self.gone >= self.seconds:
            trainer.should_stop = True


class Report(Callback):
    """Prints a line of losses every few steps, and one of scores after each validation.

    Where more than a tenth of the steps had no finite gradient, the run ends with
    :class:`NotFinite`; they are looked at ten at a time at the least, and at the end.
    """

    def __init__(self, every: int = 50, file: Path | None = None) -> None:
        self.every, self.file = max(1, every), file
        self.scenes = self.views = 0
        self._since = self._begun = time.monotonic()
        self._scenes_since = 0
        self._first = self._looked = self._last = self._skipped = 0
        self.validated: int | None = None
        """The step of the last validation."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._since = self._begun = time.monotonic()
        self._first = self._looked = self._last = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        """Count scenes; after a step, not between the batches of one, print from time to time."""
        assert isinstance(pl_module, Training)
        scenes = batch.images.shape[0] * trainer.world_size // pl_module.sharing
        self.scenes += scenes
        self._scenes_since += scenes
        self.views += scenes * batch.images.shape[1]
        if (rest[0] + 1) % trainer.accumulate_grad_batches:
            return
        final = trainer.should_stop or trainer.global_step == trainer.max_steps
        if trainer.global_step % self.every == 0 or final:
            self.report(trainer, pl_module, final)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what is left, however the run came to its end."""
        assert isinstance(pl_module, Training)
        if trainer.global_step > self._last:
            self.report(trainer, pl_module, True)

    def report(self, trainer: Trainer, module: Training, final: bool = False) -> None:
        """Print the means since the last report.

        Raises:
            NotFinite: more than a tenth of the steps had no finite gradient.
        """
        means = module.report()
        if not trainer.is_global_zero:
            self._heed(means.get("skipped", 0.0), trainer.global_step, final)
            return
        for logger in trainer.loggers:
            logger.log_metrics({f"train/{k}": v for k, v in means.items()}, trainer.global_step)
        now = time.monotonic()
        rate = self._scenes_since / max(now - self._since, 1e-9)
        self._since, self._scenes_since = now, 0
        terms = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        text = f"{self.scenes} scenes  {speed}/s  lr {lr:.2e}  {terms}"
        self.tell(f"step {trainer.global_step}  {now - self._begun:.0f} s  {text}", means)
        self._heed(means.get("skipped", 0.0), trainer.global_step, final)

    def _heed(self, skipped: float, step: int, final: bool) -> None:
        """Stop where too many steps were left out; at the end of a short run, of those it had."""
        self._skipped += round(skipped * (step - self._last))
        self._last = step
        least = min(LOOKED_AT, step - self._first) if final else LOOKED_AT
        looked_at = max(least, step - self._looked)
        checks.require(
            self._skipped <= MOST_SKIPPED * looked_at,
            f"the gradients of steps {self._looked + 1} to {step}",
            f"be finite in all but {MOST_SKIPPED:.0%} of them",
            f"{self._skipped} without: stopped, and none of those has moved the weights",
            error=NotFinite,
        )
        if step - self._looked >= LOOKED_AT:
            self._skipped, self._looked = 0, step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores of held-out scenes beside the trivial guess."""
        self.validated = trainer.global_step
        if not trainer.is_global_zero:
            return
        scores = {
            name.removeprefix("val/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        order = ("auc@30", "trivial", "rra@5", "rra@15", "rta@5", "rta@15", "absrel", "delta")
        text = "  ".join(f"{name} {scores[name]:.3f}" for name in order if name in scores)
        self.say(f"validation at step {self.validated}: {text}")
        # A validation is no part of the steps' rate.
        self._since, self._scenes_since = time.monotonic(), 0

    def tell(self, line: str, means: Mapping[str, float]) -> None:
        """Print a step's line."""
        self.say(line)

    def say(self, line: str) -> None:
        """Print a line now, and keep it."""
        print(line, flush=True)
        self.keep(line)

    def keep(self, line: str) -> None:
        """Write a line to the log."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with naming(self.file), self.file.open("a", encoding="utf-8") as out:
                out.write(line + "\n")


class Keep(Callback):
    """Saves trunk and adapter every few minutes and at the end; a failed write stops no run."""

    def __init__(self, folder: Path, minutes: float, report: Report) -> None:
        self.folder, self.minutes, self.report = folder, minutes, report
        self._last = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save when it is time."""
        if time.monotonic() - self._last >= 60 * self.minutes:
            self.save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what the run ends with."""
        self.save(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """What whole steps have made of the weights is kept, whatever ended the run: a loss that
        is not finite, a worker that died, a machine that is taken back."""
        try:
            self.save(trainer, pl_module)
        except RuntimeError as error:  # the device itself has failed
            self.report.say(f"not saved: {checks.reason(error)}")

    def save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files, from one rank."""
        self._last = time.monotonic()
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Training)
        facts = {
            "step": str(trainer.global_step),
            "scenes": str(self.report.scenes),
            "views": str(self.report.views),
        }
        bad = [n for n, p in pl_module.model.named_parameters() if not bool(p.isfinite().all())]
        if bad:
            self.report.say(f"not saved: {bad[0]} is not finite")
            return
        try:
            save_parts(pl_module.model, self.folder, facts)
        except OSError as error:
            self.report.say(f"not saved in {self.folder}: {checks.reason(error)}")


class Profile(Callback):
    """Profiles a few steps of the first process: what its device did, longest first, and a trace
    for a browser."""

    STEPS = 5

    def __init__(self, file: Path, first: int) -> None:
        self.output, self.first = file, first
        self._profiler: torch.profiler.profile | None = None
        self._begun = 0.0

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Begin at the first of the steps."""
        if trainer.global_step == self.first and trainer.is_global_zero:
            self._wait()
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=kinds)
            self._profiler.start()
            self._begun = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Write after the last of them."""
        if self._profiler is None or trainer.global_step < self.first + self.STEPS:
            return
        self._wait()
        took = (time.perf_counter() - self._begun) / self.STEPS
        self._profiler.stop()
        averages = self._profiler.key_averages()
        self._profiler.export_chrome_trace(str(self.output.with_suffix(".trace.json.gz")))
        self._profiler = None
        on_gpu = torch.cuda.is_available()
        order = ["self_device_time_total"] * on_gpu + ["self_cpu_time_total"]
        text = [f"{1000 * took:.1f} ms a step with the profiler on, {self.STEPS} steps"]
        if on_gpu:
            peak = torch.cuda.max_memory_allocated() / 2**30
            text.append(f"{peak:.1f} GiB at most")
        shown = {"row_limit": 80, "max_name_column_width": 120}
        text += [averages.table(sort_by=by, **shown) for by in order]
        with naming(self.output):
            self.output.write_text("\n\n".join(text), encoding="utf-8")

    def _wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
