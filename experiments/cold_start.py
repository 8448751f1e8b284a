"""A thousand JPEGs on disk → files on disk, process start, imports, weights and all included.

    python experiments/cold_start.py FOLDER [--photos 1000]

Writes photos of 392×518 and weights of vggt_1b's size (random) into FOLDER, then runs
``vggt3 reconstruct`` twice in a process of its own: first without any cache of compiled kernels,
then with what the first run left.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from vggt3.model import weights_saving
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model


def write_photo(folder: Path, number: int) -> None:
    """A picture of smooth noise: as many bytes as a photograph has."""
    draw = np.random.default_rng(number)
    coarse = Image.fromarray(draw.integers(0, 256, (49, 65, 3), dtype=np.uint8))
    coarse.resize((518, 392), Image.Resampling.BICUBIC).save(
        folder / f"{number:04}.jpg", quality=90
    )


def prepare(folder: Path, photos: int, preset: str) -> None:
    """Photos, a backbone and its adapter."""
    (folder / "photos").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda n: write_photo(folder / "photos", n), range(photos)))
    model = open_model(ModelChoice(preset=preset, attention="ttt_shortconv")).model
    backbone = weights_saving.save_backbone(folder / "weights.safetensors", model)
    adapter = folder / "weights.ttt_shortconv.safetensors"
    weights_saving.save_adapter(adapter, model, backbone=backbone)


def reconstruct(folder: Path, *options: str) -> float:
    """Seconds of the command in a process of its own."""
    began = time.perf_counter()
    subprocess.run(
        [
            sys.executable, "-m", "vggt3", "reconstruct", folder / "photos", "-o", folder / "scene",
            "--overwrite", "--weights", folder / "weights.safetensors", "--attention",
            "ttt_shortconv", "--attention.sweeps", "2", "--long-side", "518", *options,
        ],
        check=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(folder / "triton")},
    )  # fmt: skip
    return time.perf_counter() - began


def main() -> None:
    """Prepare, then twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--preset", default="vggt_1b")
    parser.add_argument("--half", action="store_true", help="once more, maps written as float16")
    asked = parser.parse_args()
    shutil.rmtree(asked.folder, ignore_errors=True)
    prepare(asked.folder, asked.photos, asked.preset)
    print(f"without any cache: {reconstruct(asked.folder):.1f} s", flush=True)
    print(f"again: {reconstruct(asked.folder):.1f} s", flush=True)
    if asked.half:
        print(f"again, --half: {reconstruct(asked.folder, '--half'):.1f} s", flush=True)


if __name__ == "__main__":
    main()
