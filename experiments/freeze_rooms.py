"""Choose the scenes of an exam and write its file: ``python experiments/freeze_rooms.py OUT``.

Done once for each version: what it chose is the exam, whatever this script becomes later. A
scene is taken if its statistics lie within the set's bounds; sets are searched in processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from vggt3.data.procedural.config import ProceduralConfig
from vggt3.evaluation.rooms import (
    LATER,
    Acceptance,
    RoomSet,
    fingerprint,
    scene_statistics,
    summarised,
)

NAME, SAMPLES = "rooms-v1", 4
SEED = int.from_bytes(b"vggt3 rooms-v1 exam", "big")
PINS = 4
LOOK = ProceduralConfig()
"""Frozen field by field: the training's defaults of 2026-11-22."""

MEDIUM = Acceptance(overlap=(0.2, 0.5), rotation_deg=30.0)
SETS: dict[str, tuple[int, dict[str, Any], Acceptance]] = {
    "v8": (512, {"views": 8}, MEDIUM),
    "v24": (512, {"views": 24}, MEDIUM),
    "v100": (64, {"views": 100}, MEDIUM),
    "v300": (32, {"views": 300}, MEDIUM),
    "easy": (64, {"views": 24}, Acceptance(overlap=(0.5, 0.8))),
    "hard": (64, {"views": 24}, Acceptance(overlap=(0.05, 0.2))),
    "duplicates": (
        64,
        {"views": 24, "duplicates": 0.9},
        Acceptance(rotation_deg=30.0, least_overlap=0.1),
    ),
}


def freeze(name: str) -> tuple[str, dict[str, Any]]:
    """The entry of one set."""
    torch.set_num_threads(1)
    count, look, accept = SETS[name]
    seed = SEED + list(SETS).index(name)
    room_set = RoomSet(name, seed, dataclasses.replace(LOOK, **look), accept, (), {}, ())
    scenes: list[int] = []
    found = []
    index, start = 0, time.monotonic()
    while len(scenes) < count:
        statistics = scene_statistics(room_set.draw(index))
        if accept.holds(statistics):
            scenes.append(index)
            found.append(statistics)
        index += 1
    entry = {
        "seed": seed,
        "look": look,
        "accept": {k: list(v) if isinstance(v, tuple) else v
                   for k, v in dataclasses.asdict(accept).items()},
        "tried": index,
        "statistics": summarised(found),
        "scenes": scenes,
        "pinned": [list(fingerprint(room_set, SAMPLES, n)) for n in scenes[:PINS]],
    }  # fmt: skip
    print(f"{name}: {count} of {index} in {time.monotonic() - start:.0f} s", flush=True)
    print("   ", entry["statistics"], flush=True)
    return name, entry


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    look = {k: v for k, v in dataclasses.asdict(LOOK).items() if k != "views" and k not in LATER}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        found = dict(pool.imap_unordered(freeze, SETS, chunksize=1))
    content = {
        "name": NAME,
        "samples": SAMPLES,
        "look": {k: list(v) if isinstance(v, tuple) else v for k, v in look.items()},
        "sets": {name: found[name] for name in SETS},
    }
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
    about = "# The exam rooms-v1, frozen by experiments/freeze_rooms.py. Changed by nobody.\n"
    options.output.write_text(about + text, encoding="utf-8")


if __name__ == "__main__":
    main()
