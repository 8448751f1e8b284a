"""Fit an adapter to the softmax layers of a trained model, layer by layer, without its heads.

    python experiments/distil_adapter.py START OUTPUT --minutes 50

Every layer of the new backend sees the tokens that the softmax layer sees and learns to answer as
it does: no gradient passes from layer to layer, so a scene costs little more than reading it, and
a CPU fits in an hour what a GPU then finishes on the real losses (experiments/gpu_train.sh).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vggt3.attention.base import Backend, Context
from vggt3.attention.memory import Delta
from vggt3.commands.parsing import CommandParser
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.model.vggt3 import VGGT3
from vggt3.training.curriculum import RecipeScenes, Steps, parse_recipes
from vggt3.training.data import Batches
from vggt3.training.optimizer import OptimizerOptions, build
from vggt3.training.parts import save_parts
from vggt3.training.run import make_model
from vggt3.types import Views


class Heard:
    """What happened in each global block of a model while a scene was read."""

    def __init__(self, model: VGGT3) -> None:
        self.given: list[tuple[Tensor, Context]] = []
        """The normalised tokens that the layer's attention was given."""
        self.before: list[Tensor] = []
        """The tokens that its answer is added to."""
        self.added: list[Tensor] = []
        """Its answer, scaled."""
        for layer in range(model.config.layers):
            self._listen(model.aggregator.block(layer))

    def _listen(self, block: Any) -> None:
        project, finish = block.attn.project, block.finish

        def hear_project(tokens: Tensor, context: Context) -> Any:
            self.given.append((tokens.float(), context))
            return project(tokens, context)

        def hear_finish(x: Tensor, mixed: Tensor, *then: Any) -> Any:
            self.before.append(x.float())
            self.added.append(block.ls1(mixed).float())
            return finish(x, mixed, *then)

        block.attn.project, block.finish = hear_project, hear_finish

    def forget(self) -> None:
        """Be ready for the next scene."""
        for heard in (self.given, self.before, self.added):
            heard.clear()


def answer(attn: Backend, tokens: Tensor, context: Context) -> Tensor:
    """A whole scene through one layer: [B, V, P, C]."""
    projection = type(attn).project(attn, tokens, context)
    state = attn.begin(tokens.shape[1], tokens.shape[0], tokens.device)
    again = True
    while again:
        state, again = attn.settle(state, Delta.total([attn.write(projection, state)]))
    return attn.read(projection, state)


def distil(
    start: Path,
    output: Path,
    *,
    attention: str = "ttt_shortconv",
    begin: Path | None = None,
    own_tokens: bool = False,
    minutes: float = 50.0,
    recipes: str = "8@168x168*2:2,16@168x168*1:1",
    seed: int = 51,
    optimizing: OptimizerOptions,
) -> None:
    """Fit an adapter to a model's softmax layers.

    Args:
        start: Folder of the trained softmax parts.
        output: Folder for the new parts: the same trunk, and the adapter.
        attention: The backend that learns.
        begin: Folder of an earlier run to go on from; by default from the softmax adapter.
        own_tokens: Layers see what the new layers before them made, and answer so that the
            tokens become what the softmax model has there.
        minutes: How long.
        recipes: Kinds of batches.
        seed: Of the scenes.
        optimizing: How the weights move.
    """
    encoder = Path("src/vggt3/weights/small.encoder.safetensors")
    teacher = make_model("small", "softmax", None, encoder, start).eval().requires_grad_(False)
    model = make_model("small", attention, None, encoder, begin or start)
    model.requires_grad_(False).eval()
    layers = nn.ModuleList(model.aggregator.block(n).attn for n in range(model.config.layers))
    layers.requires_grad_(True).train()
    theirs, ours = Heard(teacher), Heard(model)
    gains = [teacher.aggregator.block(n).ls1.gamma for n in range(model.config.layers)]
    optimizer = build(layers, optimizing)
    kinds = parse_recipes(recipes)
    scenes = RecipeScenes(kinds, ProceduralConfig(), seed)
    began = said = time.monotonic()
    errors: list[Tensor] = []
    output.mkdir(parents=True, exist_ok=True)
    for step, parameters in enumerate(Batches(Steps(kinds, seed), scenes)):
        done = (time.monotonic() - began) / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = optimizing.rate(step, done)
        views = Views.from_tensor(render(parameters, samples=1).images)
        theirs.forget()
        ours.forget()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            teacher.read(views)
            if own_tokens:
                model.read(views)
        seen = ours if own_tokens else theirs
        errors.append(torch.zeros(len(layers)))
        for n, (attn, (tokens, context)) in enumerate(zip(layers, seen.given, strict=True)):
            wanted = theirs.before[n] + theirs.added[n]
            found = seen.before[n] + answer(attn, tokens, context) * gains[n]
            error = (found - wanted).square().sum() / theirs.added[n].square().sum()
            error.backward()
            errors[-1][n] = error.detach()
        norm = nn.utils.clip_grad_norm_(layers.parameters(), optimizing.clip)
        if bool(norm.isfinite()):
            optimizer.step()
        else:
            print(f"step {step + 1} left out: its gradient is {norm}", flush=True)
            errors.pop()
        optimizer.zero_grad()
        last = done >= 1
        if errors and (time.monotonic() - said > 60 or last):
            said = time.monotonic()
            means = torch.stack(errors).mean(0)
            line = "  ".join(f"{e:.3f}" for e in means.tolist())
            text = f"step {step + 1}  {said - began:.0f} s  mean {means.mean():.4f}  layers {line}"
            print(text, flush=True)
            with (output / "log.txt").open("a", encoding="utf-8") as log:
                log.write(text + "\n")
            errors.clear()
            save_parts(model, output, {"step": str(step + 1)})
        if last:
            break


if __name__ == "__main__":
    distil(**CommandParser(distil, "distil_adapter").parse(sys.argv[1:]))
