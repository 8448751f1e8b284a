"""``vggt3 fit`` as typed, on scenes that cost nothing to render."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3 import cli
from vggt3.data.procedural.scene import SceneBatch, SceneParameters
from vggt3.training.fit import Fitting
from vggt3.training.rendering import Renderer

TINY = ["--preset", "tiny"]
SMALL_SCENES = ["--data.size", "[28,28]", "--data.views", "3", "--data.scenes", "1"]
SMALL_SCENES += ["--data.val_batches", "1", "--data.furniture", "[1,2]", "--report_every", "1"]


def painted(renderer: Renderer, parameters: SceneParameters) -> SceneBatch:
    """In place of the renderer: noise and a bumpy depth from each scene's seed."""
    views, (height, width) = parameters.views, parameters.size
    images, depths = [], []
    for seed in parameters.seed.tolist():
        dice = torch.Generator().manual_seed(seed)
        images.append(torch.rand(views, 3, height, width, generator=dice))
        depths.append(1 + torch.rand(views, height, width, generator=dice))
    depth = torch.stack(depths)
    world = parameters.camera_from_world
    return SceneBatch(torch.stack(images), depth, depth > 0, world, parameters.intrinsics)


def noisy(step: Any) -> Any:
    """A training step that also depends on torch's random numbers."""

    def stepped(module: Fitting, batch: SceneBatch, batch_idx: int) -> Tensor:
        return step(module, batch, batch_idx) * (0.5 + torch.rand(()))

    return stepped


def fit(output: Path, *words: str, command: str = "fit", debug: bool = True) -> int:
    shown = ["--debug"] * debug
    return cli.main([command, "--output", str(output), *SMALL_SCENES, *words, *shown])


def learned(output: Path) -> dict[str, Tensor]:
    """What the checkpoint in a fit's folder holds: weights and the optimizer's state."""
    stored = torch.load(output / "last.ckpt", weights_only=True)
    sums = stored["optimizer_states"][0]
    order = [number for group in sums["param_groups"] for number in group["params"]]
    moments = {
        f"optimizer.{order.index(number)}.{name}": torch.as_tensor(value)
        for number, state in sums["state"].items()
        for name, value in state.items()
    }
    step = {"step": torch.tensor(stored["global_step"])}
    return {**stored["state_dict"], **moments, **step}


def differing(a: Path, b: Path) -> Sequence[str]:
    """The names of what two fits' checkpoints do not hold bit for bit alike."""
    ours, theirs = learned(a), learned(b)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]
