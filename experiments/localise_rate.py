"""How fast photos are localised in a map of a thousand: ``python experiments/localise_rate.py``.

Random weights of vggt_1b, random images of 392×518 on the device, ttt_shortconv. In batches and one
at a time, with the camera head as it is and with ``fast_head``; cameras, depth and points.
"""

from __future__ import annotations

import time

import torch

from vggt3.evaluation.benchmark.measure import random_views
from vggt3.inference.localise import Localizer, QueryOptions
from vggt3.inference.mapping import map_taken
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.taking import take
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

SIZE = (392, 518)


def seconds_of(localizer: Localizer, scenes: list[Views]) -> float:
    """Of asking about each of ``scenes`` in turn, answers on the host."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for views in scenes:
        for _ in localizer.ask(views):
            pass
    torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(model: VGGT3, mapped: int = 1000, asked: int = 256) -> None:
    """Print images a second of each way."""
    engine = SceneEngine(model, RunOptions("cuda", "bf16", memory="40G"))
    began = time.perf_counter()
    scene = map_taken(engine, take(random_views(mapped, SIZE, 0).to("cuda"), 518))
    torch.cuda.synchronize()
    print(f"mapped {mapped} views in {time.perf_counter() - began:.2f} s", flush=True)
    queries = random_views(asked, SIZE, 1).to("cuda")
    singles = [Views.from_tensor(queries.groups[0].images[:, n : n + 1]) for n in range(32)]
    for options in (
        QueryOptions(),
        QueryOptions(dense=False),
        QueryOptions(fast_head=True),
        QueryOptions(fast_head=True, dense=False),
    ):
        localizer = Localizer(engine, scene, options)
        for name, scenes, count in (("together", [queries], asked), ("singly", singles, 32)):
            seconds_of(localizer, scenes[:2])
            found = [count / seconds_of(localizer, scenes) for _ in range(3)]
            print(f"{options}, {name}: {sorted(found)[1]:.1f} images/s", flush=True)


if __name__ == "__main__":
    choice = ModelChoice(preset="vggt_1b", attention="ttt_shortconv")
    measure(open_model(choice).model)
