"""What the contract suite is run on: every registered backend, and options that change a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3.attention import registry
from vggt3.attention.base import Backend, Context, Projection
from vggt3.attention.memory import Delta, State
from vggt3.attention.registry import LayerSpec
from vggt3.attention.rope import Rope

OPTIONS: dict[str, list[dict[str, object]]] = {
    "softmax": [{}, {"max_views": 2}, {"kernel": "math"}],
    "linear": [{}],
    "ttt_mlp": [
        {"sweeps": 1},
        {"sweeps": 2, "hidden": 2},
        {"sweeps": 3, "newton_schulz": 0},
        {"rates": "fixed"},
        {"gate": True},
        {"sweeps": 2, "initial": "learned"},
    ],
    "ttt_shortconv": [
        {},
        {"sweeps": 3},
        {"initial": "learned"},
        {"sweeps": 1, "kernel_size": 5},
        {"kernel_size": 1},
        {"convolved": "qk"},
        {"convolved": "qkv", "gate": True, "rates": "fixed"},
    ],
}
"""Backends that are not here, such as an installed plug-in's, are run with their defaults."""

SPECS = [
    LayerSpec(name, tuple(sorted(options.items())))
    for name in registry.table()
    for options in OPTIONS.get(name, [{}])
]


def label(spec: LayerSpec) -> str:
    return "-".join([spec.name, *(f"{k}={v}" for k, v in spec.options)])


@dataclass(frozen=True)
class Case:
    """Views of one grid, and where they stand."""

    tokens: Tensor
    """[B, V, P, C]"""
    context: Context

    def pick(self, places: Sequence[int]) -> Case:
        """The views at these places of this case, as a chunk of the same scene."""
        index, context = list(places), self.context
        weight = None if context.weight is None else context.weight[:, index]
        ids = tuple(context.ids[n] for n in index)
        picked = Context(ids, context.grid, context.rope, weight, context.plan)
        return Case(self.tokens[:, index], picked)

    def planned(self, plan: State | None) -> Case:
        context = self.context
        return Case(
            self.tokens, Context(context.ids, context.grid, context.rope, context.weight, plan)
        )

    def weighted(self, weight: Tensor | None) -> Case:
        context = self.context
        return Case(
            self.tokens, Context(context.ids, context.grid, context.rope, weight, context.plan)
        )


WIDTH, HEADS, SPECIAL = 16, 2, 2


def draw_case(
    views: int = 3,
    *,
    batch: int = 1,
    grid: tuple[int, int] = (2, 3),
    width: int = WIDTH,
    dtype: torch.dtype = torch.float64,
    first_id: int = 0,
) -> Case:
    tokens = torch.randn(batch, views, SPECIAL + grid[0] * grid[1], width, dtype=dtype)
    rope = Rope.of_grid(grid, SPECIAL, width // HEADS, tokens.device, dtype)
    return Case(tokens, Context(tuple(range(first_id, first_id + views)), grid, rope))


def build(
    spec: LayerSpec, *, width: int = WIDTH, dtype: torch.dtype = torch.float64, layer: int = 0
) -> Backend:
    """A backend whose every parameter matters: none is left at the zero or one it starts from."""
    backend = spec.build(width, HEADS, layer).to(dtype).eval()
    with torch.no_grad():
        for parameter in backend.parameters():
            scale = parameter.abs().mean().clamp(min=0.2)
            parameter.add_(torch.randn_like(parameter) * 0.5 * scale)
    return backend


def describe(case: Case) -> Tensor:
    """[B, V, C] unit-length descriptors, as the scene makes them of the encoder's patches."""
    return torch.nn.functional.normalize(case.tokens.detach().mean(dim=2), dim=-1)


def survey(backend: Backend, case: Case) -> Case:
    """The case, with what the backend's survey of all its views found."""
    return case.planned(backend.survey(describe(case)))


def begin(backend: Backend, case: Case, views: int | None = None) -> State:
    batch, held = case.tokens.shape[:2]
    plan = case.context.plan
    return backend.begin(views or held, batch, case.tokens.device, plan)


def remember(backend: Backend, cases: Sequence[Case], views: int) -> State:
    """The settled memory of a scene whose views come in these chunks."""
    projections = [backend.project(case.tokens, case.context) for case in cases]
    state, again = begin(backend, cases[0], views), True
    while again:
        delta = Delta.total(backend.write(projection, state) for projection in projections)
        state, again = backend.settle(state, delta)
    return state


def answer(backend: Backend, case: Case, state: State) -> Tensor:
    """What a chunk's queries find: [B, V, P, C]."""
    return backend.read(backend.project(case.tokens, case.context), state)


def attend(backend: Backend, case: Case) -> Tensor:
    """All steps over all views at once: [B, V, P, C]."""
    return answer(backend, case, remember(backend, [case], case.tokens.shape[1]))


def tensors_of(thing: object) -> dict[str, Tensor]:
    """Every tensor in what passes between the steps, by name."""
    if isinstance(thing, Tensor):
        return {"": thing}
    if isinstance(thing, Projection):
        return dict(thing.tensors)
    if isinstance(thing, State):
        return dict(thing.tensors)
    if isinstance(thing, Delta):
        return {**thing.sums, **thing.lists}
    if isinstance(thing, Context):
        plan = {} if thing.plan is None else {f"plan.{k}": t for k, t in thing.plan.tensors.items()}
        weight = {} if thing.weight is None else {"weight": thing.weight}
        return {"cos": thing.rope.cos, "sin": thing.rope.sin, **weight, **plan}
    raise TypeError(type(thing))


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance; the shapes must agree and all must be finite."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert torch.isfinite(found).all()
    difference = (found - expected).detach().norm()
    return float(difference / expected.detach().norm().clamp(min=1e-30))
