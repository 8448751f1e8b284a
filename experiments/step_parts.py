"""Where a training step's milliseconds go, on one GPU: ``python experiments/step_parts.py OUT``
(an adapter's: ``--learns adapter --attention ttt_shortconv --option sweeps=2 --teacher``).

The legs' own step (experiments/gpu_leg.sh): small, softmax, 32 scenes of 8 photos of 168×168,
compiled, bf16. Its parts are recorded (CUDA graphs) and replayed one by one, forwards alone and
with their gradients; then the whole step, whose kernels are listed by the time they take in
OUT/kernels-*.txt.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from event_timing import milliseconds
from torch import Tensor

from vggt3.data.procedural.look import Look
from vggt3.losses import LossWeights
from vggt3.training.curriculum import RecipeScenes, Steps, parse_recipes
from vggt3.training.data import Batches
from vggt3.training.module import LearningOptions, Training
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.recording import Recorder
from vggt3.training.rendering import Renderer
from vggt3.training.run import make_model
from vggt3.training.teacher import Teacher
from vggt3.types import Views

TEXTURES = Path(".carry/textures")
LOOK = Look(
    fov_deg=(35, 90), clutter=(0, 8), thin=(0, 6), repeated=0.15, weak=0.1, glossy=0.15,
    turns=0.05, advances=0.1, jpeg=(40, 98), exposure=0.25, white_balance=0.07,
    textures=TEXTURES if TEXTURES.is_dir() else None,
)  # fmt: skip
"""As the legs' scenes are."""
WEIGHTS = Path("src/vggt3/weights")
ROUNDS = 31
NAMES = ("depth", "depth_confidence", "points", "points_confidence")
"""Of the dense heads' maps."""


def recorded(run: Callable[[], Any]) -> Callable[[], Any]:
    """A replay of ``run``'s kernels."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        run()
    return graph.replay


def differentiated(
    module: Training, run: Callable[[], list[Tensor]], given: list[Tensor]
) -> Callable[[], Any]:
    """``run`` and the gradients of what it gives, with respect to ``given`` and what learns."""

    def both() -> None:
        found = run()
        wanted = [*given, *(p for p in module.model.parameters() if p.requires_grad)]
        torch.autograd.grad(found, wanted, [torch.ones_like(x) for x in found], allow_unused=True)

    return both


def parts(module: Training, batch: Any) -> dict[str, tuple[Callable[[], Any], ...]]:
    """Each part as (forwards, with gradients)."""
    model, shown = module.model, slice(0, None, module.learning.dense_every)
    views = Views.from_tensor(batch.images)
    images = batch.images.flatten(0, 1)
    with torch.no_grad():
        patches = model.encoder(images)
        trunk = model.read(views, module.conduct)
        features = [x[:, shown].detach() for x in trunk.features[0]]
        tokens = trunk.camera_tokens.detach()
        group = Views.from_tensor(batch.images[:, shown]).groups[0]
        stages, maps = model.poses(trunk), model.dense(tuple(features), group)
    patches = patches.detach()
    given = [x.requires_grad_() for x in features]
    tokens.requires_grad_()
    known = replace(module.conduct, encode=lambda *unused: patches)

    def encode() -> list[Tensor]:
        return [model.encoder(images)]

    def read() -> list[Tensor]:
        found = model.read(views, known)
        return [*found.features[0], found.camera_tokens]

    def camera() -> list[Tensor]:
        return list(model.poses(replace(trunk, camera_tokens=tokens)))

    def dense() -> list[Tensor]:
        found = model.dense(tuple(given), group)
        return [getattr(found, name) for name in NAMES]

    leaves = [getattr(maps, name).detach().requires_grad_() for name in NAMES]
    given_maps = replace(maps, **dict(zip(NAMES, leaves, strict=True)))

    def judge() -> list[Tensor]:
        return [module.loss(batch, stages, given_maps, shown)[1]]

    learns = next(model.encoder.parameters()).requires_grad
    return {
        "encoder": (encode, differentiated(module, encode, [])) if learns else (encode,),
        "frame and global blocks": (read, differentiated(module, read, [])),
        "camera head": (camera, differentiated(module, camera, [tokens])),
        "dense heads": (dense, differentiated(module, dense, given)),
        "losses": (judge, lambda: torch.autograd.grad(judge(), leaves)),
    }


def kernels(run: Callable[[], Any]) -> list[Any]:
    """What a call launches on the device, as the profiler saw it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]


def whole(module: Training, batch: Any, out: Path, name: str) -> float:
    """Milliseconds of a whole step, recorded; its kernels into a file."""
    learning = [p for p in module.model.parameters() if p.requires_grad]
    recorder = Recorder(module.terms, learning)
    shown = slice(0, None, module.learning.dense_every)

    def step() -> None:
        recorder.step(batch, shown)

    spent = milliseconds(step, ROUNDS)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in kernels(step):
        sums[event.name][0] += event.device_time / 1000
        sums[event.name][1] += 1
    lines = [
        f"{ms:8.3f} ms {count:6.0f} times  {kernel[:180]}"
        for kernel, (ms, count) in sorted(sums.items(), key=lambda pair: -pair[1][0])
    ]
    (out / f"kernels-{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    print(f"kernels of {name}: {sum(ms for ms, _ in sums.values()):.1f} ms in {len(lines)} names")
    print("\n".join(lines[:45]), flush=True)
    return spent


def moved(module: Training) -> float:
    """Milliseconds of clipping and the optimizer, launches included."""
    optimizer = module.configure_optimizers()
    moving = [p for p in module.model.parameters() if p.requires_grad]
    for p in moving:
        p.grad = torch.randn_like(p) * 1e-4

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()

    spent = milliseconds(step, ROUNDS)
    launched = kernels(step)
    busy = sum(event.device_time for event in launched) / 1000
    print(f"optimizer: {spent:.2f} ms, of which {busy:.2f} ms are {len(launched)} kernels")
    return spent


def training(told: argparse.Namespace) -> Training:
    """The module of a leg, as the options have it."""
    backbone = WEIGHTS / "small.safetensors"
    options = {name: json.loads(value) for name, value in (x.split("=") for x in told.option)}
    model = make_model("small", told.attention, options, None, backbone)
    teacher = Teacher(make_model("small", "softmax", start=backbone)) if told.teacher else None
    learning = LearningOptions(
        train=told.learns,
        dense_every=told.dense_every,
        compile=True,
        teacher=10.0 if told.teacher else 0.0,
    )
    weights = LossWeights(normals=0.1, dropped=0.0, tail=10.0, sky=0.2)
    module = Training(model, learning, OptimizerOptions(method="muon"), weights, teacher)
    if teacher is not None:
        teacher.settle(torch.device("cuda"))
    return module


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="8@168x168*32")
    parser.add_argument("--learns", default="all")
    parser.add_argument("--dense-every", type=int, default=2)
    parser.add_argument("--attention", default="softmax")
    parser.add_argument("--option", action="append", default=[], help="such as sweeps=2")
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--whole", action="store_true", help="of the whole step alone")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    module = training(told)
    model = module.model
    module.to("cuda").train()
    for head in (model.depth_head, model.point_head):
        head.to(memory_format=torch.channels_last)
    recipes = parse_recipes(told.recipe)
    config, textures = LOOK.dressed()
    bank = None if textures is None else textures.bank
    steps = Steps(recipes, 5, count=1)
    drawn = next(iter(Batches(steps, RecipeScenes(recipes, config, 5))))
    for samples in (4, 1):
        renderer = Renderer(torch.device("cuda"), bank, samples)
        print(f"rendering, {samples} rays a pixel: {milliseconds(partial(renderer, drawn)):.2f} ms")
    batch = Renderer(torch.device("cuda"), bank, 4)(drawn)
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        for name, runs in ({} if told.whole else parts(module, batch)).items():
            spent = [milliseconds(recorded(run), ROUNDS) for run in runs]
            print(f"{name}: " + ", ".join(f"{ms:.2f}" for ms in spent) + " ms", flush=True)
        name = "-".join([told.learns, told.attention, *told.option])
        spent = whole(module, batch, told.out, re.sub("[^a-z0-9]+", "-", name))
        print(f"step: {spent:.2f} ms", flush=True)
    moved(module)


if __name__ == "__main__":
    main()
