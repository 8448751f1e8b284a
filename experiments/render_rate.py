"""Scenes a second of both renderers on this machine, and how far apart their pictures are.

python experiments/render_rate.py
"""

from __future__ import annotations

import time

import torch

from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import Renderer, render
from vggt3.data.procedural.scene import SceneBatch, SceneParameters, collate
from vggt3.data.procedural.scenes import draw_scene

SCENES = 32


def timed(scenes: SceneParameters, samples: int, way: Renderer) -> tuple[SceneBatch, float]:
    """A rendered batch, and the milliseconds that the median of nine took."""
    batch, times = render(scenes, None, samples, way), []
    for _ in range(9):
        torch.cuda.synchronize()
        began = time.perf_counter()
        batch = render(scenes, None, samples, way)
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return batch, sorted(times)[4]


def main() -> None:
    """Print a line for each renderer and number of rays a pixel."""
    config = ProceduralConfig()
    scenes = collate([draw_scene(config, 7, n) for n in range(SCENES)]).to(torch.device("cuda"))
    for samples in (1, 4):
        plain, slow = timed(scenes, samples, "torch")
        fused, quick = timed(scenes, samples, "triton")
        apart = (plain.images - fused.images).abs()
        deep = (plain.depth - fused.depth).abs() > 1e-3 * plain.depth
        for way, spent in (("torch", slow), ("triton", quick)):
            print(f"{way}, {samples} rays a pixel: {spent:.1f} ms, {1000 * SCENES / spent:.0f}/s")
        print(
            f"  images differ by {float(apart.mean()):.2e} on average, above 0.02 in "
            f"{float((apart > 0.02).float().mean()):.2e} of the values; depth above 0.1 % in "
            f"{float(deep.float().mean()):.2e}; finite {bool(fused.images.isfinite().all())}"
        )


if __name__ == "__main__":
    main()
