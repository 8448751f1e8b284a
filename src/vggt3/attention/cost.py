"""What each backend costs, measured: one layer is run on torch's meta device, which only counts.

Nothing here knows a backend, so those of other packages are measured like our own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import docstring_parser
import torch

from vggt3 import checks
from vggt3.attention import registry
from vggt3.attention.base import Backend, Context
from vggt3.attention.kernels import flops
from vggt3.attention.registry import LayerSpec
from vggt3.attention.rope import Rope

NOWHERE = torch.device("meta")


@dataclass(frozen=True)
class Sizes:
    """One global layer and the views it is measured with."""

    width: int
    """C"""
    heads: int
    """H"""
    special: int
    """Camera and register tokens of a view."""
    grid: tuple[int, int]
    """Rows and columns of patches of a view."""

    @property
    def tokens(self) -> int:
        """P"""
        return self.special + self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Cost:
    """One layer, at inference, on a scene of some views."""

    views: int
    """V"""
    flops: int
    """Of the whole layer but its MLP (2 for a multiply-add; matrix products, convolutions and
    attention, as torch counts them): projections, every sweep's write, settle, read."""
    state_bytes: int
    """Of the settled state, with bf16 activations."""

    @property
    def gflops_per_view(self) -> float:
        """10⁹ floating-point operations for each view."""
        return self.flops / self.views / 1e9


@dataclass(frozen=True)
class Option:
    """What can be set behind a backend's name."""

    name: str
    default: Any
    about: str
    """From the "Args:" of the backend's ``__init__``."""


@dataclass(frozen=True)
class Report:
    """All that can be said of one registered backend."""

    name: str
    summary: str
    origin: str
    """The package that brings it."""
    options: tuple[Option, ...] = ()
    costs: tuple[Cost, ...] = ()
    """In the order of the views asked for."""
    linear: bool = False
    """Measured: twice the views cost at most twice the operations."""
    bounded: bool = False
    """Measured: twice the views leave a state of the same bytes."""
    problem: str | None = None
    """Why it could not be loaded or measured."""


def measure(spec: LayerSpec, sizes: Sizes, views: int) -> Cost:
    """Count one layer's operations on a scene of ``views`` views of one size.

    Raises:
        Whatever the backend does where it cannot run on the meta device, which has no values.
    """
    return _count(_without_values(spec, sizes), sizes, views)


def _without_values(spec: LayerSpec, sizes: Sizes) -> Backend:
    """A layer on the meta device; made where values are, since making it may need them."""
    backend = spec.build(sizes.width, sizes.heads, 0).eval()
    return backend.to(device=NOWHERE, dtype=torch.bfloat16)


def _count(backend: Backend, sizes: Sizes, views: int) -> Cost:
    # Made with values: without them, the operators that this needs are Python's, and slow.
    full = Rope.of_grid(sizes.grid, sizes.special, sizes.width // sizes.heads, torch.device("cpu"))
    rope = Rope(full.cos.to(NOWHERE), full.sin.to(NOWHERE))
    tokens = torch.empty(1, views, sizes.tokens, sizes.width, dtype=torch.bfloat16, device=NOWHERE)
    with torch.no_grad(), flops.counter() as counted:
        plan = backend.survey(torch.empty(1, views, sizes.width, device=NOWHERE))
        context = Context(tuple(range(views)), sizes.grid, rope, plan=plan)
        projection = backend.project(tokens, context)
        state, again = backend.begin(views, 1, NOWHERE, plan), True
        while again:
            state, again = backend.settle(state, backend.write(projection, state))
        backend.read(projection, state)
    return Cost(views, counted.get_total_flops(), state.nbytes)


def options_of(name: str) -> tuple[Option, ...]:
    """The options of a registered backend, in the order of its ``__init__``."""
    documented = docstring_parser.parse(registry.backend_class(name).__init__.__doc__ or "")
    about = {p.arg_name: " ".join((p.description or "").split()) for p in documented.params}
    return tuple(
        Option(option, parameter.default, about.get(option, ""))
        for option, parameter in registry.options_of(name).items()
    )


def report(name: str, sizes: Sizes, views: tuple[int, ...]) -> Report:
    """One backend at its default options; a plug-in that fails gets its reason in words."""
    found = Report(name, "", registry.origin(name))
    try:
        found = replace(
            found,
            summary=registry.backend_class(name).summary,
            options=options_of(name),
        )
        backend = _without_values(LayerSpec(name), sizes)
        costs = {v: _count(backend, sizes, v) for v in (*views, 2 * views[0])}
        once, twice = costs[views[0]], costs[2 * views[0]]
        return replace(
            found,
            costs=tuple(costs[v] for v in views),
            linear=twice.flops <= 2 * once.flops,
            bounded=twice.state_bytes == once.state_bytes,
        )
    except checks.InputError as error:
        return replace(found, problem=str(error))
    except Exception as error:  # a stranger's code: its failure is a row, not the end
        return replace(found, problem=f"not measured, {type(error).__name__}: {error}")


def reports(sizes: Sizes, views: tuple[int, ...] = (100, 1000)) -> list[Report]:
    """Every registered backend, the built-in ones first."""
    names = [*registry.BUILT_IN, *sorted(set(registry.table()) - set(registry.BUILT_IN))]
    return [report(name, sizes, views) for name in names]
