"""What a training step of an adapter costs: ``python experiments/training_step.py``.

vggt_1b, one scene of 24 views of 392×518, everything but the global attention frozen, blocks
checkpointed, bf16 autocast, AdamW; random images, random truth. Steps are timed with the forward
and backward pass, the clipping and the optimizer in them.
"""

from __future__ import annotations

import argparse
import time

import torch

from vggt3.data.procedural.scene import SceneBatch
from vggt3.geometry.rotation import quaternion_to_matrix
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.training.module import LearningOptions, Training
from vggt3.training.optimizer import OptimizerOptions


def random_scene(views: int, size: tuple[int, int], device: torch.device) -> SceneBatch:
    """Noise with cameras, all of it valid."""
    draw = torch.Generator().manual_seed(0)
    turned = quaternion_to_matrix(torch.randn(1, views, 4, generator=draw))
    moved = torch.randn(1, views, 3, 1, generator=draw)
    intrinsics = torch.tensor([[400.0, 0, size[1] / 2], [0, 400, size[0] / 2], [0, 0, 1]])
    found = SceneBatch(
        images=torch.rand(1, views, 3, *size, generator=draw),
        camera_from_world=torch.cat([turned, moved], dim=-1),
        intrinsics=intrinsics.expand(1, views, 3, 3),
        depth=1 + torch.rand(1, views, *size, generator=draw),
        valid=torch.ones(1, views, *size, dtype=torch.bool),
    )
    return SceneBatch(**{name: x.to(device) for name, x in vars(found).items()})


def measure(attention: str, asked: argparse.Namespace) -> None:
    """Print seconds a step and memory."""
    device = torch.device(asked.device)
    choice = ModelChoice(preset=asked.preset, attention=attention)
    module = Training(
        open_model(choice, device).model.train(),
        LearningOptions(checkpointing=not asked.keep, compile=asked.compile),
        OptimizerOptions(),
    ).to(device)
    module.train()
    moving = module.configure_optimizers()
    height, width = (int(n) for n in asked.size.split("x"))
    scene = random_scene(asked.views, (height, width), device)
    learning = [p for p in module.parameters() if p.requires_grad]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    spent = []
    for _ in range(asked.steps + 2):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            loss = module.terms(scene)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        moving.step()
        moving.zero_grad()
        value = float(loss.detach())  # waits for the device
        spent.append(time.perf_counter() - began)
    assert value == value, "the loss is not a number"
    second = sorted(spent[2:])[asked.steps // 2]
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    print(
        f"{attention}: {second:.3f} s a step of {asked.views} views of {asked.size}, "
        f"{asked.views / second:.1f} images/s, peak {peak:.1f} GiB, "
        f"{sum(p.numel() for p in learning) / 1e6:.0f} M parameters learn, loss {value:.3f}; "
        f"first steps {spent[0]:.1f} and {spent[1]:.1f} s",
        flush=True,
    )


def main() -> None:
    """Each backend in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="vggt_1b")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--size", default="392x518")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--keep", action="store_true", help="no checkpointing")
    parser.add_argument("--attention", default="ttt_shortconv,softmax")
    asked = parser.parse_args()
    for attention in asked.attention.split(","):
        measure(attention, asked)


if __name__ == "__main__":
    main()
