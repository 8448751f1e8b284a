"""Train a model on procedural scenes: ``python experiments/train_small.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from vggt3.commands.parsing import CommandParser
from vggt3.data.procedural.look import Look
from vggt3.losses import LossWeights
from vggt3.training.data import DataOptions, ProceduralData
from vggt3.training.module import LearningOptions, Training
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.run import RunOptions, make_model, run
from vggt3.training.teacher import Teacher


def train(
    *,
    output: Path,
    preset: str = "small",
    attention: str = "softmax",
    attention_options: dict[str, Any] | None = None,
    encoder: Path | None = None,
    start: Path | None = None,
    adapter: Path | None = None,
    learning: LearningOptions,
    optimizing: OptimizerOptions,
    weights: LossWeights,
    data: DataOptions,
    look: Look,
    options: RunOptions,
) -> None:
    """Train on procedural scenes.

    Args:
        output: Folder for the weights and the log.
        preset: Sizes of the model.
        attention: Backend of the global layers.
        attention_options: An option of the backend.
        encoder: File with the encoder's weights.
        start: Folder of an earlier run to start from, or a backbone's file.
        adapter: Adapter of an earlier run to go on from, where the start is a backbone's file.
        learning: What learns.
        optimizing: How the weights move.
        weights: The loss.
        data: Which scenes.
        look: What scenes look like.
        options: How long.
    """
    torch.manual_seed(options.model_seed)
    model = make_model(preset, attention, attention_options, encoder, start, adapter)
    teacher = None
    if learning.teacher > 0:
        teacher = Teacher(make_model(preset, "softmax", None, encoder, start))
    module = Training(model, learning, optimizing, weights, teacher)
    config, textures = look.dressed()
    bank = None if textures is None else textures.bank
    run(module, ProceduralData(data, config, bank), output, options)


if __name__ == "__main__":
    train(**CommandParser(train, "train_small").parse(sys.argv[1:]))
