"""How much of a GPU's matmul rate training reaches: ``python experiments/step_flops.py --help``.

    python experiments/step_flops.py --rate 1550 --gpus 4 --peak 790

Counts the matrix products of a step's forward and backward pass for a scene of each recipe: what
is frozen has no backward pass, and views that the dense heads do not see are not counted; drawing
scenes, losses and the optimizer count as nothing. With a measured rate in scenes/s that makes a
share of the peak.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from training_step import random_scene

from vggt3.attention.kernels import flops
from vggt3.training.curriculum import Recipe, parse_recipes
from vggt3.training.module import LearningOptions, Training
from vggt3.training.run import make_model
from vggt3.training.teacher import Teacher

SHIPPED = Path("src/vggt3/weights/small.safetensors")


def count(module: Training, recipe: Recipe, every: int) -> dict[str, float]:
    """GFLOP a scene of all, of the forward pass, and of the encoder in it."""
    scene = random_scene(recipe.views, recipe.size, torch.device("cpu"))
    with flops.counter() as counted:
        loss = module.terms(scene, slice(0, None, every))["loss"]
        forward = counted.get_total_flops()
        loss.backward()
    encoder = sum(counted.get_flop_counts()["Encoder"].values())
    counts = {"all": counted.get_total_flops(), "forward": forward, "encoder": encoder}
    return {name: value / 1e9 for name, value in counts.items()}


def main() -> None:
    """Count each recipe, then the mean of their mixture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default="8@168x168*32:2,8@168x224*24:2,16@168x126*20:1")
    parser.add_argument("--train", default="all")
    parser.add_argument("--attention", default="softmax")
    parser.add_argument("--teacher", action="store_true", help="count the teacher's products too")
    parser.add_argument("--dense-every", type=int, default=2)
    parser.add_argument("--rate", type=float, help="measured scenes/s")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--peak", type=float, default=790.0, help="TFLOP/s of one GPU")
    asked = parser.parse_args()
    model = make_model("small", asked.attention, start=SHIPPED)
    teacher = Teacher(make_model("small", "softmax", start=SHIPPED)) if asked.teacher else None
    learning = LearningOptions(train=asked.train, teacher=10.0 if asked.teacher else 0.0)
    module = Training(model, learning, teacher=teacher)
    module.train()
    if teacher is not None:
        teacher.settle(torch.device("cpu"))
    scenes = products = 0.0
    for recipe in parse_recipes(asked.recipes):
        found = count(module, recipe, asked.dense_every)
        scenes += recipe.share * recipe.scenes
        products += recipe.share * recipe.scenes * found["all"]
        told = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        print(f"{recipe.views} views of {recipe.size[0]}x{recipe.size[1]}, GFLOP a scene: {told}")
    mean = products / scenes
    print(f"of the mixture: {mean:.1f} GFLOP a scene")
    if asked.rate:
        each = asked.rate * mean / 1000 / asked.gpus
        print(f"{each:.1f} TFLOP/s a GPU, {100 * each / asked.peak:.1f} % of {asked.peak:.0f}")


if __name__ == "__main__":
    main()
