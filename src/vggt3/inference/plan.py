"""The plan of a run: how many views at a time, and whether projections are kept.

Computed from sizes and a stated budget alone, so the same photos give the same plan on the same
machine. What a backend's projections and states weigh is measured on the backend itself with a
view of one patch, so a plug-in is planned for like the shipped ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vggt3 import checks
from vggt3.attention.base import Backend, Context
from vggt3.attention.rope import Rope
from vggt3.inference.options import show_bytes
from vggt3.model.vggt3 import VGGT3
from vggt3.types import PATCH

CHUNKS = (64, 32, 16, 8, 4, 2, 1)
ACTIVATIONS = 12
"""Widths of a token that live at once inside a block (MLP hidden 4, its GELU 4, qkv 3, norm 1)."""
SLACK = 1.15
"""On top of the sum: the allocator's rounding and small things not counted."""


@dataclass(frozen=True)
class Plan:
    """How a scene is computed within a memory budget."""

    views: int
    tokens: int
    """T: tokens of all views."""
    chunk: int
    """Views worked on at a time (of one size)."""
    keep: bool
    """Whether a layer's projections are kept between write and read, or computed again."""
    parts: tuple[tuple[str, int], ...]
    """What takes memory on the device at the worst moment, in bytes."""
    budget: int
    """Bytes allowed."""

    @property
    def needed(self) -> int:
        """Bytes the plan expects to use at its worst moment."""
        return int(SLACK * sum(size for _, size in self.parts))

    def describe(self) -> list[tuple[str, str]]:
        """Rows (name, value) for people."""
        rows = [
            ("views", str(self.views)),
            ("tokens", str(self.tokens)),
            ("views at a time", str(self.chunk)),
            ("projections", "kept" if self.keep else "computed again"),
        ]
        rows += [(f"memory: {name}", show_bytes(size)) for name, size in self.parts]
        return [
            *rows,
            ("memory: expected", show_bytes(self.needed)),
            ("memory: allowed", show_bytes(self.budget)),
        ]


def _backend_bytes(attn: Backend, special: int, views: int, device: torch.device) -> list[float]:
    """[bytes of the projection a token, of the state for one token a view, of each further
    token]: measured on views of one patch."""
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
    return [stored / (2 * tokens), sizes[0] - each * tokens, each]


def make_plan(
    model: VGGT3,
    sizes: Sequence[tuple[int, int]],
    budget: int,
    dtype: torch.dtype,
    chunk: int | None = None,
) -> Plan:
    """The largest chunk that fits, keeping projections if they fit too.

    Args:
        model: on the device it will run on.
        sizes: (height, width) of every view, as the model sees it.
        budget: bytes allowed on the device.
        dtype: of matrix products.
        chunk: views at a time if the caller insists.

    Raises:
        PlanError: nothing fits; says what it would need and what to change.
    """
    options = [(c, k) for k in (True, False) for c in ((chunk,) if chunk else CHUNKS)]
    measured, tokens = _measured(model, len(sizes)), _tokens(model, sizes)
    fixed = _fixed_parts(model, tokens, dtype, measured)
    projection = max(row[0] for row in measured)
    smallest = None
    for views, keep in options:
        held, work = _working_bytes(model, sizes, dtype, views)
        projections = ("projections", int((tokens if keep else held) * projection))
        parts = (*fixed, projections, ("work on a chunk", work))
        plan = Plan(len(sizes), tokens, views, keep, parts, budget)
        if plan.needed <= budget:
            return plan
        if smallest is None or plan.needed < smallest.needed:
            smallest = plan
    assert smallest is not None
    largest = max(smallest.parts, key=lambda part: part[1])
    checks.fail(
        f"the plan for {len(sizes)} views",
        f"fit {show_bytes(budget)}",
        f"{show_bytes(smallest.needed)} at least ({largest[0]}: {show_bytes(largest[1])}); give a "
        "smaller --long-side, fewer views, --precision bf16, a backend with a bounded state, or "
        "more --memory",
        error=checks.PlanError,
    )


def _patches(size: tuple[int, int]) -> int:
    return (size[0] // PATCH) * (size[1] // PATCH)


def _tokens(model: VGGT3, sizes: Sequence[tuple[int, int]]) -> int:
    return sum(_patches(size) + model.config.special for size in sizes)


@torch.no_grad()
def _measured(model: VGGT3, views: int) -> list[list[float]]:
    """:func:`_backend_bytes` for each distinct backend, one entry a layer."""
    device = next(model.parameters()).device
    found = {}
    for spec, block in zip(model.specs, model.aggregator.global_blocks, strict=True):
        if spec not in found:
            assert isinstance(block.attn, Backend)
            found[spec] = _backend_bytes(block.attn, model.config.special, views, device)
    return [found[spec] for spec in model.specs]


def _fixed_parts(
    model: VGGT3, tokens: int, dtype: torch.dtype, measured: list[list[float]]
) -> tuple[tuple[str, int], ...]:
    config, element = model.config, next(model.parameters()).element_size()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if dtype.itemsize < element:
        weights += sum(p.numel() for p in model.parameters()) * dtype.itemsize  # autocast's copies
    features = len(config.feature_layers) * tokens * 2 * config.width * element
    states = sum(base + each * tokens for _, base, each in measured)
    return (
        ("weights", weights),
        ("tokens", 2 * tokens * config.width * element),
        ("features for the heads", features),
        ("scene memory", int(states)),
    )


def _working_bytes(
    model: VGGT3, sizes: Sequence[tuple[int, int]], dtype: torch.dtype, chunk: int
) -> tuple[int, int]:
    """Tokens of a chunk of the largest views, and the bytes that work on it takes."""
    config, element = model.config, dtype.itemsize
    views = min(chunk, len(sizes))
    largest = max(sizes, key=lambda size: size[0] * size[1])
    per_view = _patches(largest) + config.special
    width = max(config.width, config.encoder.width)
    block = views * per_view * width * ACTIVATIONS * element
    finest = 64 * _patches(largest) * config.dense_features * element  # 8× the patch grid
    full = largest[0] * largest[1]
    half, last = config.dense_features // 2, config.dense_output
    head = 3 * finest + full * (2 * half + 2 * last) * element + full * 9 * 4
    return views * per_view, max(block, views * head)
