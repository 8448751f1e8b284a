"""What the commands of training do and begin with, where nobody says otherwise."""

from __future__ import annotations

from typing import Any

import torch

TRAINER = {
    "max_epochs": -1,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": None,  # where standard output is a terminal
    "use_distributed_sampler": False,
    "inference_mode": False,
}

ABOUT = {
    "fit": "Train global attention (or with --train-all a whole model) on scenes.",
    "validate": "Score a model on the held-out scenes.",
    "test": "Score a model on scenes that fit does not see (procedural ones: nor validate).",
    "predict": "Write a model's cameras and depth of the held-out scenes beside the truth.",
}


def machine_defaults() -> dict[str, Any]:
    """Defaults that a GPU and a CPU do not share."""
    if torch.cuda.is_available():
        return {
            "trainer.max_steps": 5000,
            "trainer.precision": "bf16-mixed",
            "trainer.benchmark": True,
            "trainer.val_check_interval": 1000,
            "report_every": 50,
            "save_every": 500,
        }
    return {
        "trainer.max_steps": 100,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "data.views": 4,
        "data.size": (112, 112),
        "data.scenes": 2,
        "data.val_batches": 8,
        "optimizer.warmup": 10,
        "report_every": 10,
        "save_every": 20,
    }
