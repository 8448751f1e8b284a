"""Fit an adapter to the softmax layers of a trained model, layer by layer, without its heads.

    python experiments/distil_adapter.py START OUTPUT --minutes 50

Every layer of the new backend sees the tokens that the softmax layer sees and learns to answer as
it does: no gradient passes from layer to layer, so a scene costs little more than reading it, and
a CPU fits in an hour what a GPU then finishes on the real losses (experiments/gpu_train.sh).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vggt3.attention.base import Backend, Context
from vggt3.attention.memory import Delta
from vggt3.commands.parsing import CommandParser
from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.look import Look
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scene import SceneParameters
from vggt3.model.vggt3 import VGGT3
from vggt3.training.curriculum import Recipe, RecipeScenes, Steps, parse_recipes
from vggt3.training.data import Batches
from vggt3.training.mixture import joined
from vggt3.training.optimizer import OptimizerOptions, build
from vggt3.training.parts import save_parts
from vggt3.training.run import make_model
from vggt3.types import Views

ENCODER = Path("src/vggt3/weights/small.encoder.safetensors")
HELD_OUT = 991
"""Seed of the scenes that nothing learns from."""


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


class Layers:
    """The new backend's layers, held beside the softmax layers of the same backbone."""

    def __init__(self, teacher: VGGT3, model: VGGT3, own_tokens: bool) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.model = model.requires_grad_(False).eval()
        blocks = [model.aggregator.block(n) for n in range(model.config.layers)]
        self.learn = nn.ModuleList(block.attn for block in blocks)
        self.learn.requires_grad_(True).train()
        self.gains = [teacher.aggregator.block(n).ls1.gamma for n in range(len(blocks))]
        self.theirs, self.ours = Heard(teacher), Heard(model)
        self.seen = self.ours if own_tokens else self.theirs

    def errors(self, views: Views) -> Iterator[Tensor]:
        """Of each layer's answer: squared distance over the softmax layer's square."""
        self.theirs.forget()
        self.ours.forget()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            self.teacher.read(views)
            if self.seen is self.ours:
                self.model.read(views)
        for n, (attn, (tokens, context)) in enumerate(
            zip(self.learn, self.seen.given, strict=True)
        ):
            wanted = self.theirs.before[n] + self.theirs.added[n]
            found = self.seen.before[n] + answer(attn, tokens, context) * self.gains[n]
            yield (found - wanted).square().sum() / self.theirs.added[n].square().sum()

    def step(
        self, optimizer: torch.optim.Optimizer, views: Views, rate: float, clip: float
    ) -> Tensor | None:
        """Learn from a scene: the layers' errors before, None where a gradient is not finite."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        errors = []
        for error in self.errors(views):
            error.backward()
            errors.append(error.detach())
        finite = bool(nn.utils.clip_grad_norm_(self.learn.parameters(), clip).isfinite())
        if finite:
            optimizer.step()
        optimizer.zero_grad()
        return torch.stack(errors) if finite else None


def drawn(scenes: SceneParameters, bank: Bank | None) -> Views:
    """Their pictures."""
    return Views.from_tensor(render(scenes, bank, samples=1).images)


@torch.no_grad()
def held_out(
    layers: Layers, kinds: tuple[Recipe, ...], look: ProceduralConfig, bank: Bank | None
) -> str:
    """The mean error over scenes that nothing learns from, as many of each kind as it names."""
    scenes, told = RecipeScenes(kinds, look, HELD_OUT), []
    for n, kind in enumerate(kinds):
        each = [drawn(joined([scenes[n, i]]), bank) for i in range(kind.scenes)]
        found = [torch.stack(list(layers.errors(views))).mean() for views in each]
        told.append(f"{kind.views} photos {sum(found) / len(found):.4f}")
    return f"held out: {', '.join(told)}"


def means(errors: list[Tensor]) -> str:
    """The layers' mean errors over some steps."""
    found = torch.stack(errors).mean(0)
    return f"mean {found.mean():.4f}  layers " + "  ".join(f"{e:.3f}" for e in found.tolist())


def say(output: Path, text: str) -> None:
    """Print a line, and keep it."""
    print(text, flush=True)
    with (output / "log.txt").open("a", encoding="utf-8") as log:
        log.write(text + "\n")


def distil(
    start: Path,
    output: Path,
    *,
    attention: str = "ttt_shortconv",
    attention_options: dict[str, Any] | None = None,
    adapter: Path | None = None,
    own_tokens: bool = False,
    minutes: float = 50.0,
    steps: int = 0,
    recipes: str = "8@168x168*2:2,16@168x168*1:1",
    asked: str = "8@168x168*3,24@168x168*3",
    seed: int = 51,
    look: Look,
    optimizing: OptimizerOptions,
) -> None:
    """Fit an adapter to a model's softmax layers.

    Args:
        start: Folder of the trained softmax parts, or a backbone's file.
        output: Folder for the new parts: the same trunk, and the adapter.
        attention: The backend that learns.
        attention_options: An option of it.
        adapter: Adapter to go on from; by default from the softmax adapter.
        own_tokens: Layers see what the new layers before them made, and answer so that the
            tokens become what the softmax model has there.
        minutes: How long.
        steps: How many steps, in place of minutes.
        recipes: Kinds of batches.
        asked: Kinds of scenes that are held out, and how many of each.
        seed: Of the scenes.
        look: What scenes look like.
        optimizing: How the weights move.
    """
    teacher = make_model("small", "softmax", None, ENCODER, start)
    model = make_model("small", attention, attention_options, ENCODER, start, adapter)
    layers = Layers(teacher, model, own_tokens)
    optimizer = build(layers.learn, optimizing)
    kinds, others = parse_recipes(recipes), parse_recipes(asked)
    config, textures = look.dressed()
    bank = None if textures is None else textures.bank
    output.mkdir(parents=True, exist_ok=True)
    say(output, held_out(layers, others, config, bank))
    began = said = time.monotonic()
    errors: list[Tensor] = []
    taken = Batches(Steps(kinds, seed), RecipeScenes(kinds, config, seed))
    for step, parameters in enumerate(taken):
        done = step / steps if steps else (time.monotonic() - began) / (60 * minutes)
        if done >= 1:
            break
        rate = optimizing.rate(step, done)
        found = layers.step(optimizer, drawn(parameters, bank), rate, optimizing.clip)
        if found is None:
            say(output, f"step {step + 1} left out: its gradient is not finite")
            continue
        errors.append(found)
        if time.monotonic() - said > 60:
            said = time.monotonic()
            say(output, f"step {step + 1}  {said - began:.0f} s  {means(errors)}")
            errors.clear()
            save_parts(model, output, {"step": str(step + 1)})
    save_parts(model, output, {"step": str(step)})
    say(output, held_out(layers, others, config, bank))


if __name__ == "__main__":
    distil(**CommandParser(distil, "distil_adapter").parse(sys.argv[1:]))
