"""Nearest neighbours on a GPU beside scipy's k-d tree, same clouds: ``--help``.

Two clouds on wavy sheets, as depth maps give them: every point of one is asked for its nearest in
the other (accuracy, completeness, a round of ICP), then every point for its 30 nearest in its own
cloud (normals). Distances must be equal to rounding; a row says by how much they are not.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from torch import Tensor

from vggt3.metrics import box_tree
from vggt3.metrics.neighbours import Neighbours

EQUAL = 1e-12
"""Relative difference of float64 distances that is rounding."""


def sheet(count: int, seed: int) -> Tensor:
    """[count, 3] float64 points within a millimetre of a wavy sheet of 10×10 m."""
    generator = torch.Generator().manual_seed(seed)
    flat = 10 * torch.rand(count, 2, dtype=torch.float64, generator=generator)
    high = torch.sin(flat.sum(1)) + 0.5 * torch.sin(3 * flat[:, 0])
    noise = 1e-3 * torch.randn(count, 3, dtype=torch.float64, generator=generator)
    return torch.cat([flat, high[:, None]], dim=1) + noise


def settle(device: torch.device) -> float:
    """Wait for the device; seconds on the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def on_device(
    held: Tensor,  # [N, 3]
    asked: Tensor,  # [M, 3]
    count: int,
    device: torch.device,
) -> tuple[Tensor, float, float]:
    """Distances [M, K] on the host; seconds to build and to ask, the second of two times."""
    there, queries = held.to(device), asked.to(device)
    built = answered = 0.0
    distance = held.new_zeros(0)
    for _ in range(2):
        began = settle(device)
        cloud = Neighbours(there)
        middle = settle(device)
        distance, _ = cloud.nearest(queries, count)
        answered, built = settle(device) - middle, middle - began
    return distance.cpu(), built, answered


def by_scipy(held: Tensor, asked: Tensor, count: int) -> tuple[Tensor, float, float]:
    """The same of ``scipy.spatial.cKDTree`` on all cores of this machine."""
    from scipy.spatial import cKDTree

    began = time.perf_counter()
    tree = cKDTree(held.numpy())
    middle = time.perf_counter()
    distance, _ = tree.query(asked.numpy(), k=range(1, count + 1), workers=-1)
    return torch.from_numpy(distance), middle - began, time.perf_counter() - middle


def main() -> int:
    """A row for each size and count; exit code 1 where distances differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", default="1000000,5000000")
    parser.add_argument("--count", default="1,30")
    parser.add_argument("--block", default="24,26", help="log2 of distances held at once")
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else asked.device
    print(f"{name} beside {os.cpu_count()} CPU cores; seconds to build + to ask", flush=True)
    print("| points | nearest | block | here | scipy | times | largest relative difference |")
    print("|---|---|---|---|---|---|---|", flush=True)
    unequal = 0
    for number in map(int, asked.points.split(",")):
        held, other = sheet(number, 0), sheet(number, 1)
        for count in map(int, asked.count.split(",")):
            queries = other if count == 1 else held
            known, grown, needed = by_scipy(held, queries, count)
            for power in map(int, asked.block.split(",")):
                box_tree.BLOCK = 1 << power
                found, built, took = on_device(held, queries, count, device)
                apart = float(((found - known).abs() / known.clamp(min=1e-30)).max())
                unequal += not apart <= EQUAL
                times = (grown + needed) / (built + took)
                print(
                    f"| {number:,} | {count} | 2^{power} | {built:.2f} + {took:.2f} "
                    f"| {grown:.2f} + {needed:.2f} | {times:.1f} | {apart:.1e} |",
                    flush=True,
                )
    return int(unequal > 0)


if __name__ == "__main__":
    raise SystemExit(main())
