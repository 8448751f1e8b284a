"""The time a view of an ablation's rows: of backends and options, whatever the weights."""

from __future__ import annotations

from typing import Any

import torch

from vggt3.evaluation.benchmark.machine import device_name
from vggt3.evaluation.benchmark.measure import timings
from vggt3.evaluation.examine import exam_engine, open_examined
from vggt3.evaluation.record import source_version
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import start_model
from vggt3.model.vggt3 import VGGT3
from vggt3.training.ablation.settings import RowSettings


def timed(
    row: RowSettings,
    weights: str | None,
    sizes: dict[int, tuple[int, int]],
    repeat: int,
    run: RunOptions,
) -> dict[str, Any]:
    """Milliseconds a view by number of views, and where they were measured: of the whole model,
    from random images on the device to its outputs.

    Args:
        row: of the table; its backend is timed as it would be before any training.
        weights: the backbone.
        sizes: views of a scene → height and width.
        repeat: timed runs after one to warm up; the median counts.
        run: device and precision.
    """
    device = run.resolve_device()
    engine = exam_engine(_model(row, weights, device), run)
    found = {
        str(views): 1000 * timings(engine, views, size, repeat, 0).seconds / views
        for views, size in sizes.items()
    }
    where = {"device": device_name(device), "torch": torch.__version__, **source_version()}
    return {"ms_a_view": found, "name": row.name, **where}


def _model(row: RowSettings, weights: str | None, device: torch.device) -> VGGT3:
    choice = ModelChoice(weights, None, row.attention, row.examined)
    # auto sweeps are the exam's two
    return (start_model(choice, device) if row.train else open_examined(choice, device)).model
