"""The progress bar of a terminal: steps done and to do, and the last reported loss."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class Bar(TQDMProgressBar):
    """Lightning's bar, counting the steps of the whole run; reads nothing from the device."""

    def on_train_epoch_start(self, trainer: Trainer, *rest: Any) -> None:
        """Begin where the run does: there is one epoch without end."""
        bar = self.train_progress_bar
        bar.total = trainer.max_steps if trainer.max_steps > 0 else None
        bar.initial = bar.n = trainer.global_step
        bar.set_description(str(trainer.state.fn.value) if trainer.state.fn else "fit")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Count a step."""
        bar = self.train_progress_bar
        bar.update(trainer.global_step - bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what is shown."""

    def init_validation_tqdm(self) -> Tqdm:
        """A bar that goes away: its scores are a line."""
        bar = super().init_validation_tqdm()
        bar.leave = False
        return bar

    def init_test_tqdm(self) -> Tqdm:
        """The same."""
        bar = super().init_test_tqdm()
        bar.leave = False
        return bar

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close its bar."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def show(self, loss: float) -> None:
        """The loss beside the bar."""
        self.train_progress_bar.set_postfix_str(f"loss {loss:.4f}")

    def print(self, *lines: Any, **options: Any) -> None:
        """A line above the bars."""
        Tqdm.write(" ".join(map(str, lines)), file=sys.stdout)
        sys.stdout.flush()
