"""Ten thousand photos on one GPU, results streamed to disk in fp16.

    python experiments/ten_thousand.py OUT [--views 10000] [--memory 60G] [--host-memory 100G]

Random weights of vggt_1b, random images of 392×518 on the device, ttt_shortconv at 2 sweeps.
Depth, points and both confidences are halved on the device, copied beside the work and written by
threads, a file a kind. Says the plan, seconds by stage (pinning apart), and peak memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from vggt3.evaluation.benchmark.measure import random_views
from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions, show_bytes
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
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


def main() -> None:
    """Run once over a few views to load kernels, then over all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--views", type=int, default=10_000)
    parser.add_argument("--memory", default="60G")
    parser.add_argument("--host-memory", default="100G")
    asked = parser.parse_args()
    options = {"sweeps": 2}
    choice = ModelChoice(preset="vggt_1b", attention="ttt_shortconv", attention_options=options)
    run = RunOptions("cuda", "bf16", memory=asked.memory, host_memory=asked.host_memory)
    engine = Engine(open_model(choice).model, run)
    Engine(engine.model, dataclasses.replace(run, memory="20G")).run(
        random_views(64, SIZE, 0).to("cuda"), Streamed(asked.output)
    )
    scene = random_views(asked.views, SIZE, 0).to("cuda")
    for name, value in engine.plan(scene).describe():
        print(f"{name}: {value}")
    sink = Streamed(asked.output)
    torch.cuda.synchronize()
    began = time.perf_counter()
    outcome = engine.run(scene, sink)
    computed = time.perf_counter() - began
    sink.close()
    whole = time.perf_counter() - began
    pinning = outcome.seconds.get("pinning", 0.0)
    print({name: round(seconds, 2) for name, seconds in outcome.seconds.items()})
    print(
        f"{asked.views} views: {whole - pinning:.1f} s and {pinning:.1f} s of page-locking; "
        f"computed after {computed - pinning:.1f} s; {show_bytes(sink.bytes)} written; "
        f"peak {show_bytes(outcome.peak_bytes)} on the device; {'; '.join(outcome.notes)}"
    )


if __name__ == "__main__":
    main()
