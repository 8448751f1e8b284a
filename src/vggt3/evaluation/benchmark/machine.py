"""The machine under a benchmark: its name, its own matmul rate, and its memory's high mark."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

SIDES = {"cpu": (1024, 2048)}
OTHER_SIDES = (4096, 8192)
"""Sides of the square matrices whose products are timed."""
BATCHES = 5
BATCH_SECONDS = 0.1


def device_name(device: torch.device) -> str:
    """The processor in words; a CPU with the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} on {platform.machine()}"
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads != 1 else ''}"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


@torch.inference_mode()
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s (2 for a multiply-add) of this machine's best square matrix product in ``dtype``.

    The better of two sizes, each the median of five timed batches after one to warm up.
    """
    rates = []
    for side in SIDES.get(device.type, OTHER_SIDES):
        generator = torch.Generator().manual_seed(side)
        a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
        once = _batch(a, b, 1)  # warms up too
        count = max(1, int(BATCH_SECONDS / min(once, _batch(a, b, 1))))
        spent = statistics.median(_batch(a, b, count) for _ in range(BATCHES))
        rates.append(2 * side**3 * count / spent)
    return max(rates)


def _batch(a: Tensor, b: Tensor, count: int) -> float:
    synchronise(a.device)
    start = time.perf_counter()
    for _ in range(count):
        a @ b
    synchronise(a.device)
    return time.perf_counter() - start


def forget_peak(device: torch.device) -> bool:
    """Set the high mark of used memory back to what is in use now; False where nobody can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
