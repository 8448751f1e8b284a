"""How time grows with the views on one GPU, and ten thousand of them with results on disk.

    python experiments/scale.py OUT --views 500,1000,2000,4000,8000 --stream 10000

Random weights of vggt_1b, random images of 392×518 on the device, ttt_shortconv at 2 sweeps, one
plan mode for all: projections computed again, features projected and in host memory as far as the
device's budget does not hold them. ``--stream`` views are run last: depth, points and both
confidences are halved on the device, copied beside the work and written by threads, a file a kind.
Page-locking is reported apart. Before that, 200 views with all in host memory must give the bits of
a plan that keeps all on the device.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from vggt3.evaluation.benchmark.measure import Discard, random_views
from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions, show_bytes
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.model.precision import placed
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Cameras, DenseView

KINDS = ("depth", "depth_confidence", "points", "points_confidence")
SIZE = (392, 518)


class Streamed:
    """A sink that writes halves of the maps at their places in four files."""

    on_device = True

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = {kind: (folder / f"{kind}.f16").open("wb") for kind in KINDS}
        self.threads = ThreadPoolExecutor(4)
        self.waiting: list[Future[None]] = []
        self.rooms: list[dict[str, torch.Tensor]] = []
        self.bytes = 0

    def cameras(self, cameras: Cameras) -> None:
        """Cameras are small and stay in memory."""
        self.found = cameras

    def add(self, view: DenseView) -> None:
        """Copy one view, and write the one that has arrived."""
        if len(self.waiting) >= 64:
            self.waiting.pop(0).result()
        room = self.rooms.pop() if self.rooms else {}
        for kind in KINDS:
            half = getattr(view, kind).clamp(-65504, 65504).half()
            if kind not in room:
                room[kind] = torch.empty(half.shape, dtype=half.dtype, pin_memory=True)
            room[kind].copy_(half, non_blocking=True)
            self.bytes += half.nbytes
        arrived = torch.cuda.Event()
        arrived.record()
        self.waiting.append(self.threads.submit(self._write, view.index, room, arrived))

    def _write(self, index: int, room: dict[str, torch.Tensor], arrived: torch.cuda.Event) -> None:
        arrived.synchronize()
        for kind, half in room.items():
            data = half.numpy()
            view = memoryview(data).cast("B")
            written = 0
            while written < len(view):
                place = index * len(view) + written
                written += os.pwrite(self.files[kind].fileno(), view[written:], place)
        self.rooms.append(room)

    def close(self) -> None:
        """Wait until all is written."""
        for future in self.waiting:
            future.result()
        for file in self.files.values():
            file.close()


class Kept:
    """A sink that keeps sums of bits."""

    on_device = True

    def __init__(self) -> None:
        self.sums: dict[int, int] = {}

    def cameras(self, cameras: Cameras) -> None:
        """Cameras follow from the same tokens."""

    def add(self, view: DenseView) -> None:
        """Depth and points as whole numbers."""
        bits = torch.cat([view.depth.flatten(), view.points.flatten()]).view(torch.int32)
        self.sums[view.index] = int(bits.sum(dtype=torch.int64))


def check_bits(model: VGGT3) -> None:
    """Where tensors lie changes no bit."""
    scene = random_views(200, SIZE, 0).to("cuda")
    found = []
    for options in (
        {"projections": "again", "features": "projected"},
        {"projections": "again", "features": "projected-host", "tokens": "host", "memory": "9G"},
    ):
        engine, kept = Engine(model, RunOptions("cuda", "bf16", chunk=32, **options)), Kept()
        engine.run(scene, kept)
        found.append(kept.sums)
        print(f"bits of 200 views, {dict(engine.plan(scene).describe())['features']}", flush=True)
    assert found[0] == found[1], "a plan's bits differ"
    print("the same bits", flush=True)


def measure(model: VGGT3, views: int, run: RunOptions, sink: Streamed | Discard) -> float:
    """Run once; seconds without page-locking."""
    engine = Engine(model, run)
    scene = random_views(views, SIZE, 0).to("cuda")
    plan = dict(engine.plan(scene).describe())
    torch.cuda.synchronize()
    began = time.perf_counter()
    outcome = engine.run(scene, sink)
    torch.cuda.synchronize()
    computed = time.perf_counter() - began
    if isinstance(sink, Streamed):
        sink.close()
    pinning = outcome.seconds.get("pinning", 0.0)
    seconds = time.perf_counter() - began - pinning
    stages = {name: round(spent, 2) for name, spent in outcome.seconds.items()}
    print(
        f"{views} views: {seconds:.2f} s ({computed - pinning:.2f} until the last is computed), "
        f"page-locking {pinning:.1f} s, peak {show_bytes(outcome.peak_bytes)}, {stages}; "
        f"chunk {plan['views at a time']}, projections {plan['projections']}, features "
        f"{plan['features']}; {'; '.join(outcome.notes)}",
        flush=True,
    )
    return seconds


def main() -> None:
    """Bits, then times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--views", default="500,1000,2000,4000,8000")
    parser.add_argument("--stream", type=int, default=10_000)
    parser.add_argument("--memory", default="60G")
    parser.add_argument("--host-memory", default="100G")
    asked = parser.parse_args()
    choice = ModelChoice(
        preset="vggt_1b", attention="ttt_shortconv", attention_options={"sweeps": 2}
    )
    run = RunOptions(
        "cuda",
        "bf16",
        memory=asked.memory,
        host_memory=asked.host_memory,
        projections="again",
        features="projected-host",
    )
    model = placed(open_model(choice).model, torch.device("cuda"), torch.bfloat16)
    check_bits(model)
    before: tuple[int, float] | None = None
    for views in (int(n) for n in asked.views.split(",")):
        seconds = measure(model, views, run, Discard())
        if before is not None:
            print(f"time({views}) / time({before[0]}) = {seconds / before[1]:.3f}", flush=True)
        before = views, seconds
    if asked.stream:
        sink = Streamed(asked.output)
        measure(model, asked.stream, run, sink)
        print(f"{show_bytes(sink.bytes)} written", flush=True)


if __name__ == "__main__":
    main()
