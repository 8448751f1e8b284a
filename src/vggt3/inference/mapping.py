"""``vggt3.map``: photos in, a memory out that further photos can be localised in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.inference.measure import measure, patches
from vggt3.inference.options import RunOptions, parse_bytes, show_bytes
from vggt3.inference.recall import STRANGERS, Familiarity, Recall, spread_out, strangers
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import Taken, take
from vggt3.io.sources import Source
from vggt3.model.scene import Conduct, Memory, Observer
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Cameras, DenseView, Views

LIMIT = "4G"
"""Bytes that a scene's memory may take unless told."""


class CamerasOnly:
    """A sink for a run without dense maps."""

    found: Cameras

    def cameras(self, cameras: Cameras) -> None:
        """Keep them."""
        self.found = cameras

    def add(self, view: DenseView) -> None:
        """Nobody wants any."""


def map(
    model: VGGT3,
    views: Source | Views,
    options: RunOptions | None = None,
    *,
    limit: str = LIMIT,
    long_side: int | None = None,
) -> SceneMemory:
    """The scene that photos leave in a model's memory.

    Args:
        model: from :func:`vggt3.open_model`.
        views: photos (a folder, a glob, files, …) or :class:`vggt3.Views` of B = 1.
        options: device, precision, memory.
        limit: most bytes that the scene's memory may take, such as 4G.
        long_side: of photos in the model; what the weights were trained for if not given.

    Raises:
        InputError: nothing readable, a plan that does not fit, a memory beyond ``limit``.
    """
    engine = SceneEngine(model, options)
    long_side = long_side or model.config.long_side
    return map_taken(engine, take(views, long_side), limit, record={"long_side": long_side})


def map_taken(
    engine: SceneEngine,
    taken: Taken,
    limit: str = LIMIT,
    observe: Observer = lambda stage, done, total: None,
    record: Mapping[str, Any] | None = None,
) -> SceneMemory:
    """:func:`map` for photos that were read, on an engine."""
    check_size(engine, taken.sizes, limit)
    sink = CamerasOnly()
    outcome = engine.run(taken.views, sink, observe)
    notes = {"notes": list(outcome.notes)} if outcome.notes else {}
    precision = str(engine.dtype).removeprefix("torch.")
    return SceneMemory(
        outcome.memory,
        sink.found,
        taken.names,
        taken.original_sizes,
        tokens_of(engine.model, taken.sizes),
        engine.identity,
        familiarity(engine, outcome.memory, taken.views),
        {"precision": precision, **notes, **(record or {})},
    )


def tokens_of(model: VGGT3, sizes: Sequence[tuple[int, int]]) -> int:
    """T of views of these sizes."""
    return sum(patches(size) + model.config.special for size in sizes)


def check_growth(
    engine: SceneEngine, scene: SceneMemory, sizes: Sequence[tuple[int, int]], limit: str
) -> int:
    """:func:`check_size` for a scene that views of ``sizes`` are added to."""
    return check_size(engine, [*scene.cameras.sizes, *sizes], limit)


def check_size(engine: SceneEngine, sizes: Sequence[tuple[int, int]], limit: str) -> int:
    """Bytes that the memory of views of these (height, width) will take.

    Raises:
        PlanError: more than ``limit``.
    """
    allowed, scale = parse_bytes(limit, "--limit"), measure(engine.model, sizes, engine.dtype)
    wanted = show_bytes(scale.states * 1.05).replace(" ", "")
    remedy = f"give --limit {wanted}"
    if scale.unbounded:
        remedy += (
            ", or fewer photos, or a backend whose memory does not grow with the photos, as that "
            f"of {', '.join(scale.unbounded)} does (--attention ttt_shortconv, or softmax with "
            "--attention.max_views)"
        )
    checks.require(
        scale.states <= allowed,
        f"the memory of a scene of {len(sizes)} photos",
        f"take at most {show_bytes(allowed)}",
        f"about {show_bytes(scale.states)}; {remedy}",
        error=checks.PlanError,
    )
    return scale.states


def familiarity(engine: SceneEngine, memory: Memory, views: Views) -> Familiarity:
    """Recall of a few of ``views``, which wrote the memory, and of photos of elsewhere."""
    size = views.groups[0].size
    own = []
    counts = spread_out(len(views.ids), STRANGERS)
    place = 0
    for group in views.groups:
        chosen = [n - place for n in counts if place <= n < place + len(group.ids)]
        place += len(group.ids)
        if chosen:
            own.append(recall_of(engine, memory, group.images[:, chosen]))
    elsewhere = recall_of(engine, memory, strangers(size)[None])
    # torch's median, the lower of two in the middle: the logistic of confidence was fitted with it.
    return Familiarity(float(torch.cat(own).median()), float(elsewhere.median()))


@torch.inference_mode()
def recall_of(
    engine: SceneEngine,
    memory: Memory,
    images: Tensor,  # [1, Q, 3, H, W]
) -> Tensor:
    """[Q] recall of photos that ask as queries, on the CPU."""
    recall, views = Recall(engine.model), Views.from_tensor(images)
    conduct = Conduct(
        keep=False, ahead=True, witness=recall, feature=lambda chunk, slot, tokens: None
    )
    engine.model.read(views, conduct, memory)
    return recall.of(0, views.total).float().cpu()
