"""How many torch operations a question of one photo is: ``python experiments/localise_ops.py``.

Of the plain functions on a CPU, where no kernel does several steps in one; views of tensors, which
do no work, are left out. By the function that calls torch. ``small`` with random weights, a map of
8, ttt_shortconv.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vggt3.evaluation.benchmark.measure import random_views
from vggt3.inference.localise import Localizer, QueryOptions
from vggt3.inference.mapping import map_taken
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.taking import take
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model

SIZE = (112, 168)


class Count(TorchDispatchMode):
    """Counts what reaches a device, by the function of vggt3 that asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, given: Any = (), named: Any = None
    ) -> Any:
        if isinstance(function, torch._ops.OpOverload) and not function.is_view:
            frame = sys._getframe()
            while frame.f_back and not frame.f_globals["__name__"].startswith("vggt3."):
                frame = frame.f_back
            name = frame.f_globals["__name__"].removeprefix("vggt3.")
            self.found[f"{name}.{frame.f_code.co_qualname}"] += 1
        return function(*given, **(named or {}))


def main() -> None:
    """Print the operations of each part of a question."""
    model = open_model(ModelChoice(preset="small", attention="ttt_shortconv")).model
    engine = SceneEngine(model, RunOptions("cpu"))
    scene = map_taken(engine, take(random_views(8, SIZE, 0), max(SIZE)))
    views = random_views(1, SIZE, 1)
    for options in (QueryOptions(), QueryOptions(dense=False)):
        localizer = Localizer(engine, scene, options)
        with Count() as counted:
            list(localizer.ask(views))
        print(f"{options}: {sum(counted.found.values())} operations")
        for name, n in counted.found.most_common(24):
            print(f"{n:6} {name}")


if __name__ == "__main__":
    main()
