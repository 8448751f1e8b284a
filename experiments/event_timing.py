"""How long work on a CUDA device takes, by the device's own clock."""

from __future__ import annotations

from collections.abc import Callable

import torch


def milliseconds(step: Callable[[], object], runs: int = 9) -> float:
    """Median of timed runs after three to warm up."""
    times = []
    for _ in range(runs + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times[3:])[runs // 2]
