"""What a scene weighs: bytes of weights, tokens, features, projections, states and work.

From sizes alone. What a backend's projections and states weigh is measured on the backend itself
with views of one patch or two, so a plug-in is planned for like the shipped ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vggt3.attention.base import Backend, Context
from vggt3.attention.memory import State
from vggt3.attention.rope import Rope
from vggt3.model.vggt3 import VGGT3
from vggt3.types import PATCH

ACTIVATIONS = 12
"""Widths of a token that live at once inside a block (MLP hidden 4, its GELU 4, qkv 3, norm 1)."""

Sizes = Sequence[tuple[int, int]]
"""(height, width) of every view, as the model sees it."""


@dataclass(frozen=True)
class BackendSize:
    """What one layer's backend takes."""

    projection: float
    """Bytes a token."""
    state: int
    """Bytes of the state whatever it holds."""
    view: int
    """Bytes of the state for each view that it keeps, its patches left out."""
    patch: int
    """Bytes of the state for each patch of these views."""
    most: int | None
    """Views that it keeps at most; None where it keeps all."""
    bounded: bool
    """Whether the backend says that its settled state does not grow with the views."""

    def grown(self, counts: Sequence[int]) -> int:
        """Bytes that views of so many patches, the largest first, add to the state. Which of them
        a survey keeps only their images tell: no more than the largest."""
        kept = counts[: self.most]
        return len(kept) * self.view + sum(kept) * self.patch


@dataclass(frozen=True)
class Scale:
    """Sizes of a scene in a model; all in bytes unless said otherwise."""

    views: int
    tokens: int
    """T, a count."""
    weights: int
    token: int
    """Of one running token."""
    raw: int
    """Of the four features of one token."""
    projected: int
    """Of the four features of one patch after both heads' projections."""
    states: int
    projection: int
    """Of one token, in the layer where it is largest."""
    unbounded: tuple[str, ...]
    """Names of the backends whose memory grows with the views."""
    gathered: int = 0
    """Of the largest list that a layer gathers from other processes."""


def _backend_size(attn: Backend, special: int, views: int, device: torch.device) -> BackendSize:
    parameter = next(attn.parameters())

    def settled(count: int, columns: int) -> tuple[State, float]:
        """The state that so many views of one row leave, and the bytes of their projections."""
        rope = Rope.of_grid((1, columns), special, attn.width // attn.heads, device)
        plan = attn.survey(torch.ones(1, count, 4, device=device))
        context = Context(tuple(range(count)), (1, columns), rope, None, plan)
        shape = (1, count, special + columns, attn.width)
        projection = attn.project(torch.zeros(shape, device=device, dtype=parameter.dtype), context)
        state = attn.begin(views, 1, device, plan)
        state, _ = attn.settle(state, attn.write(projection, state))
        return state, sum(t.numel() * t.element_size() for t in projection.tensors.values())

    one, stored = settled(1, 1)

    def more(count: int, columns: int = 1) -> int:
        return settled(count, columns)[0].nbytes - one.nbytes

    patch, second = more(1, 2), more(2)
    first = second or patch  # the second may be one more than it keeps
    count, kept = 2, first + second
    while one.bounded and first and count < views:  # until more views leave no more
        count, before = min(2 * count, views), kept
        kept = first + more(count)
        if kept == before:
            break
    most = kept // first if one.bounded and first else None
    state = one.nbytes - first
    return BackendSize(stored / (special + 1), state, first - patch, patch, most, one.bounded)


def patches(size: tuple[int, int]) -> int:
    """Patches of a view."""
    return (size[0] // PATCH) * (size[1] // PATCH)


@torch.no_grad()
def measure(model: VGGT3, sizes: Sizes, dtype: torch.dtype, before: Sizes = ()) -> Scale:
    """Measure ``model`` (on its device) and a scene of views of ``sizes``, or such views that are
    added to a scene of those of ``before``: its states and the new ones are held at once."""
    config, parameter = model.config, next(model.parameters())
    element = parameter.element_size()
    found = {}
    for spec, block in zip(model.specs, model.aggregator.global_blocks, strict=True):
        if spec not in found:
            assert isinstance(block.attn, Backend)
            views = len(before) + len(sizes)
            found[spec] = _backend_size(block.attn, config.special, views, parameter.device)
    layers = [found[spec] for spec in model.specs]

    def states(held: Sizes) -> int:
        counts = sorted(map(patches, held), reverse=True)
        return sum(layer.state + layer.grown(counts) for layer in layers)

    counts = sorted(map(patches, sizes), reverse=True)
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return Scale(
        views=len(sizes),
        tokens=sum(counts) + len(sizes) * config.special,
        weights=weights,
        token=config.width * element,
        raw=len(config.feature_layers) * 2 * config.width * element,
        projected=2 * sum(config.dense_projections) * dtype.itemsize,
        states=states([*before, *sizes]) + (states(before) if before else 0),
        projection=int(max(layer.projection for layer in layers)),
        gathered=max(layer.grown(counts) for layer in layers),
        unbounded=tuple(dict.fromkeys(s.name for s, size in found.items() if not size.bounded)),
    )


def working_bytes(
    model: VGGT3, size: tuple[int, int], dtype: torch.dtype, views: int, shown: int
) -> tuple[int, int, int]:
    """Tokens of ``views`` views of one size, the bytes that a block's work on them takes, and
    those of the dense heads' work on ``shown`` of them."""
    config, element = model.config, dtype.itemsize
    per_view = patches(size) + config.special
    width = max(config.width, config.encoder.width)
    block = views * per_view * width * ACTIVATIONS * element
    finest = 64 * patches(size) * config.dense_features * element  # 8× the patch grid
    full = size[0] * size[1]
    half, last = config.dense_features // 2, config.dense_output
    head = 3 * finest + full * (2 * half + 2 * last) * element + full * 9 * 4
    return views * per_view, block, min(views, shown) * head
