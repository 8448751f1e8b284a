"""Two processes with half of the scenes each score what one with all of them scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.metrics.test_trajectory import noisy, path
from vggt3.metrics import AbsRel, PoseAccuracy, QueryAccuracy, TrajectoryError, VideoDepth
from vggt3.metrics.clouds import CloudAccuracy


def seen(scenes: range) -> dict[str, dict[str, float]]:
    metrics: dict[str, Any] = {
        "trajectory": TrajectoryError(),
        "queries": QueryAccuracy(),
        "depth": VideoDepth(),
        "scaled": AbsRel(),
        "pairs": PoseAccuracy(),
        "clouds": CloudAccuracy(),
    }
    for scene in scenes:
        torch.manual_seed(scene)
        truth = path(5 + scene)
        guess = noisy(truth)
        near = truth.clone()
        near[..., 3] += 0.1 * torch.randn_like(near[..., 3])
        depth = 1 + torch.rand(40 + scene)
        points = torch.randn(50, 3, dtype=torch.float64)
        metrics["trajectory"].update(guess, truth)
        metrics["queries"].update(near, truth)
        metrics["depth"].update(depth * (1 + 0.1 * torch.rand_like(depth)), depth)
        maps = depth[None, None, None]
        some = (maps > 1.5) & (scene != 1)  # one scene without truth
        metrics["scaled"].update(maps + 0.1 * torch.rand_like(maps), maps, some)
        metrics["pairs"].update(near[None], truth[None])
        metrics["clouds"].update(points + 0.1, points)
    return {
        name: {key: float(value) for key, value in metric.compute().items()}
        for name, metric in metrics.items()
    }


def part(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/door", rank=rank, world_size=2)
    torch.set_num_threads(1)
    found = seen(range(rank * 2, 2 + rank * 3))  # two and three
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    mp.start_processes(part, (str(tmp_path),), nprocs=2, start_method="fork")
    found, whole = torch.load(tmp_path / "found.pt"), seen(range(5))
    for name, scores in whole.items():
        assert found[name] == pytest.approx(scores, rel=1e-9), name
