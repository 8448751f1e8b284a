"""Does a scene know what a photo shows? The memory is asked with the photo's own keys.

A memory maps keys to values. A photo brings keys, and the values that it would write to them; where
the scene has seen the place, reading with its keys gives values close to its own. *Recall* is the
cosine between the two, mean over heads, patches, and the layers that the dense heads read. It has
no scale of its own: it depends on the backend, the weights and the scene. So a scene keeps two
marks, measured when it is mapped: the recall of its own photos, asked as if they were new, and
that of photos of elsewhere. Confidence is a photo's place between them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vggt3.attention.base import Projection
from vggt3.attention.memory import State
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene
from vggt3.model.vggt3 import VGGT3

SLOPE, MIDDLE = 11.7, 0.345
"""Of the logistic from the place between the marks (0 elsewhere, 1 own) to confidence, as fitted by
experiments/localisation_confidence.py."""
LEAST_GAP = 0.02
"""Marks closer than this (an untrained model's) are taken to be this far apart."""

STRANGERS = 12
"""Drawn rooms that stand for elsewhere, one photo each."""
STRANGER_SEED = 2**71
"""Of these rooms: neither training's, nor an exam's."""
STRANGER_SIDE = 168
"""Pixels of the long side at which they are rendered; larger ones are blown up."""


class Recall:
    """A witness (:class:`vggt3.model.scene.Conduct`) that measures recall chunk by chunk."""

    def __init__(self, model: VGGT3) -> None:
        self.model = model
        self.layers = set(model.config.feature_layers)
        self.found: dict[int, list[Tensor]] = {}

    def __call__(self, layer: int, chunk: int, projection: Projection, state: State) -> None:
        """Take what a chunk brings to a layer, and the layer's memory."""
        if layer not in self.layers:
            return
        recall = self.model.aggregator.block(layer).attn.recall(projection, state)
        if recall is not None:
            of_views = recall[0, :, projection.context.special :].mean(dim=-1)  # [V_c]
            self.found.setdefault(chunk, []).append(of_views)

    def of(self, chunk: int, views: int) -> Tensor:
        """[V_c] on the device; nan where no backend of these layers can say."""
        found = self.found.pop(chunk, None)
        if found:
            return torch.stack(found).mean(0)
        like = self.model.camera_head.empty_pose
        return like.new_full((views,), torch.nan, dtype=torch.float32)


@dataclass(frozen=True)
class Familiarity:
    """The two marks of a scene; nan where its backend cannot recall."""

    own: float
    """Median recall of photos that were mapped."""
    elsewhere: float
    """Median recall of photos of other places."""

    def confidence(
        self,
        recall: Tensor,  # [Q]
    ) -> Tensor:
        """[Q] in (0, 1): how likely a photo shows the place, were it so one time in two."""
        gap = max(self.own - self.elsewhere, LEAST_GAP)
        place = (recall.float() - self.elsewhere) / gap
        return torch.sigmoid(SLOPE * (place - MIDDLE))


@functools.lru_cache(maxsize=4)
def strangers(size: tuple[int, int], count: int = STRANGERS) -> Tensor:
    """[count, 3, H, W] uint8: one photo each of ``count`` drawn rooms."""
    shrink = min(1.0, STRANGER_SIDE / max(size))
    small = (max(14, round(size[0] * shrink)), max(14, round(size[1] * shrink)))
    config = ProceduralConfig(views=1, size=small)
    with torch.no_grad():
        taken = [
            render(draw_scene(config, STRANGER_SEED, n)).images[0] for n in range(count)
        ]  # each [1, 3, h, w]
        photos = torch.cat(taken)
        if small != size:
            photos = interpolate(photos, size=size, mode="bilinear", antialias=True)
        return (photos.clamp(0, 1) * 255).round().to(torch.uint8)


def spread_out(count: int, most: int) -> list[int]:
    """At most ``most`` of 0..count-1, evenly."""
    chosen = min(count, most)
    return sorted({round(n * (count - 1) / max(1, chosen - 1)) for n in range(chosen)})
