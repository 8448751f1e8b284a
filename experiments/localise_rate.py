"""How fast photos are localised in a map of a thousand: ``python experiments/localise_rate.py``.

Random weights of vggt_1b, random images of 392×518 on the device, ttt_shortconv. In batches and one
at a time, with the camera head as it is and with ``fast_head``; cameras, depth and points. One at a
time kernel by kernel and from a recording, whose answers are held to the kernels' bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from vggt3.evaluation.benchmark.measure import random_views
from vggt3.inference.localise import Answer, Localizer, QueryOptions
from vggt3.inference.mapping import map_taken
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import take
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

SIZE = (392, 518)
SINGLES, COMPARED, REPEATS = 32, 8, 3
"""Photos asked about one at a time; as many of them kernel by kernel too; runs of which the middle
one counts."""


def seconds_of(localizer: Localizer, scenes: list[Views]) -> float:
    """Of asking about each of ``scenes`` in turn, answers on the host."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for views in scenes:
        for _ in localizer.ask(views):
            pass
    torch.cuda.synchronize()
    return time.perf_counter() - began


def rate(localizer: Localizer, scenes: list[Views]) -> float:
    """Images a second, the middle of three."""
    count = sum(len(views.ids) for views in scenes)
    return count / sorted(seconds_of(localizer, scenes) for _ in range(REPEATS))[REPEATS // 2]


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers have the same bits."""
    pairs = [
        (one.camera_from_world, other.camera_from_world),
        (one.intrinsics, other.intrinsics),
        (torch.tensor(one.confidence), torch.tensor(other.confidence)),
    ]
    if one.maps is not None and other.maps is not None:
        names = ("depth", "depth_confidence", "points", "points_confidence")
        pairs += [(getattr(one.maps, name), getattr(other.maps, name)) for name in names]
    return all(torch.equal(x, y) for x, y in pairs)


def singly(
    engine: SceneEngine, scene: SceneMemory, options: QueryOptions, singles: list[Views]
) -> None:
    """Print rates of one photo at a time, and whether recordings change an answer."""
    plain = Localizer(engine, scene, replace(options, record=False))
    recorded = Localizer(engine, scene, options)
    seconds_of(plain, singles[:2])
    first, second = (1000 * seconds_of(recorded, singles[n : n + 1]) for n in range(2))
    slow = rate(plain, singles[:COMPARED])
    print(f"{options}, singly: kernel by kernel {slow:.1f} images/s", end=", ")
    print(f"replayed {rate(recorded, singles):.1f} images/s", end=", ")
    kept = len(recorded.recorder.kept)
    print(f"first question {first:.0f} ms, second (recording: {kept}) {second:.0f} ms", end=", ")
    alike = [
        same(a, b)
        for views in singles[:COMPARED]
        for a, b in zip(recorded.ask(views), plain.ask(views), strict=True)
    ]
    print(f"{sum(alike)} of {len(alike)} answers have the same bits", end=", ")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    del recorded
    torch.cuda.empty_cache()
    print(f"recording of {(before - torch.cuda.memory_reserved()) / 2**20:.0f} MiB", flush=True)


def measure(model: VGGT3, mapped: int = 1000, asked: int = 256) -> None:
    """Print images a second of each way."""
    engine = SceneEngine(model, RunOptions("cuda", "bf16", memory="40G"))
    began = time.perf_counter()
    scene = map_taken(engine, take(random_views(mapped, SIZE, 0).to("cuda"), 518))
    torch.cuda.synchronize()
    print(f"mapped {mapped} views in {time.perf_counter() - began:.2f} s", flush=True)
    queries = random_views(asked, SIZE, 1).to("cuda")
    singles = [Views.from_tensor(queries.groups[0].images[:, n : n + 1]) for n in range(SINGLES)]
    for options in (
        QueryOptions(),
        QueryOptions(dense=False),
        QueryOptions(fast_head=True),
        QueryOptions(fast_head=True, dense=False),
    ):
        localizer = Localizer(engine, scene, options)
        seconds_of(localizer, [queries])
        print(f"{options}, together: {rate(localizer, [queries]):.1f} images/s", flush=True)
        singly(engine, scene, options, singles)


if __name__ == "__main__":
    choice = ModelChoice(preset="vggt_1b", attention="ttt_shortconv")
    measure(open_model(choice).model)
