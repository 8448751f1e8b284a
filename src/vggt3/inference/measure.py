"""What a scene weighs: bytes of weights, tokens, features, projections, states and work.

From sizes alone. What a backend's projections and states weigh is measured on the backend itself
with a view of one patch, so a plug-in is planned for like the shipped ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vggt3.attention.base import Backend, Context
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
    state: float
    """Bytes of the state whatever it holds."""
    state_token: float
    """Bytes of the state for each token."""
    bounded: bool
    """Whether the backend says that its settled state does not grow with the views."""


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
    rope = Rope.of_grid((1, 1), special, attn.width // attn.heads, device)
    sizes = []
    for count in (1, 2):
        plan = attn.survey(torch.ones(1, count, 4, device=device))
        context = Context(tuple(range(count)), (1, 1), rope, None, plan)
        x = torch.zeros(1, count, special + 1, attn.width, device=device, dtype=parameter.dtype)
        projection = attn.project(x, context)
        state = attn.begin(views, 1, device, plan)
        state, _ = attn.settle(state, attn.write(projection, state))
        sizes.append(state.nbytes)
    stored = sum(t.numel() * t.element_size() for t in projection.tensors.values())
    tokens = special + 1
    each = (sizes[1] - sizes[0]) / tokens
    return BackendSize(stored / (2 * tokens), sizes[0] - each * tokens, each, state.bounded)


def patches(size: tuple[int, int]) -> int:
    """Patches of a view."""
    return (size[0] // PATCH) * (size[1] // PATCH)


@torch.no_grad()
def measure(model: VGGT3, sizes: Sizes, dtype: torch.dtype) -> Scale:
    """Measure ``model`` (on its device) and a scene of views of ``sizes``."""
    config, parameter = model.config, next(model.parameters())
    element = parameter.element_size()
    found = {}
    for spec, block in zip(model.specs, model.aggregator.global_blocks, strict=True):
        if spec not in found:
            assert isinstance(block.attn, Backend)
            found[spec] = _backend_size(block.attn, config.special, len(sizes), parameter.device)
    layers = [found[spec] for spec in model.specs]
    tokens = sum(patches(size) + config.special for size in sizes)
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return Scale(
        views=len(sizes),
        tokens=tokens,
        weights=weights,
        token=config.width * element,
        raw=len(config.feature_layers) * 2 * config.width * element,
        projected=2 * sum(config.dense_projections) * dtype.itemsize,
        states=int(sum(layer.state + layer.state_token * tokens for layer in layers)),
        projection=int(max(layer.projection for layer in layers)),
        gathered=int(max(layer.state_token for layer in layers) * tokens),
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
