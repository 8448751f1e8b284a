"""What a backend costs, counted, against what its equation says it must cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.attention.variants import draw_case, remember
from vggt3.attention import cost, registry
from vggt3.attention.base import Backend
from vggt3.attention.cost import Sizes, measure, report, reports
from vggt3.attention.kernels import flops
from vggt3.attention.registry import LayerSpec

SIZES = Sizes(width=32, heads=2, special=2, grid=(2, 3))
C, D, P = 32, 16, 8
PROJECTIONS = 8 * C * C
"""Of one token: q, k, v and out."""


def per_token(spec: LayerSpec, views: int) -> float:
    return measure(spec, SIZES, views).flops / (views * P)


@pytest.mark.parametrize("views", [3, 50])
def test_equations_are_counted(views: int) -> None:
    newton_schulz = 3 * 2 * 5 * (2 * D * D * 4 * D * 2 + 2 * D * D * D)
    for sweeps in (1, 2):
        spec = LayerSpec("ttt_mlp", (("sweeps", sweeps),))
        rates, write, read = 2 * C * 3 * 2, 48 * D * C * sweeps, 24 * D * C
        expected = PROJECTIONS + rates + write + read + sweeps * newton_schulz / (views * P)
        assert per_token(spec, views) == pytest.approx(expected, rel=1e-9)
    assert per_token(LayerSpec("softmax"), views) == PROJECTIONS + 4 * views * P * C
    assert per_token(LayerSpec("linear"), views) == PROJECTIONS + 2 * C * D + 2 * C * (D + 1)


def test_a_convolution_is_counted() -> None:
    plain, mixed = (per_token(LayerSpec(name), 4) for name in ("ttt_mlp", "ttt_shortconv"))
    assert mixed - plain == pytest.approx(2 * 9 * C * 6 / P)


@pytest.mark.parametrize("name", list(registry.BUILT_IN))
def test_meta_counts_what_the_processor_does(name: str) -> None:
    """The same layer with values, on the CPU and its own kernels."""
    backend = LayerSpec(name).build(C, 2, 0).eval()
    case = draw_case(5, width=C, dtype=torch.float32)
    with torch.no_grad(), flops.counter() as counted:
        state = remember(backend, [case], 5)
        backend.read(backend.project(case.tokens, case.context), state)
    # The helper projects once for writing and once for reading.
    twice = 5 * P * (PROJECTIONS - 2 * C * C)
    if name.startswith("ttt"):
        twice += 5 * P * 2 * C * 3 * 2
    if name == "ttt_shortconv":
        twice += 5 * 6 * 2 * 9 * C
    assert counted.get_total_flops() - twice == measure(LayerSpec(name), SIZES, 5).flops


def test_claims_are_measured() -> None:
    found = {r.name: r for r in reports(SIZES, (4, 8)) if r.name in registry.BUILT_IN}
    assert list(found) == list(registry.BUILT_IN)
    assert {n for n, r in found.items() if r.linear} == {"linear", "ttt_mlp", "ttt_shortconv"}
    assert {n for n, r in found.items() if r.bounded} == {"linear", "ttt_mlp", "ttt_shortconv"}
    for r in found.values():
        assert r.problem is None and [c.views for c in r.costs] == [4, 8]
        assert r.costs[0].gflops_per_view > 0 and r.summary and r.origin == "vggt3"
        assert all(option.about for option in r.options)
    assert found["softmax"].costs[1].state_bytes == 2 * found["softmax"].costs[0].state_bytes
    kept = 3 * 2 * D * 4 * D + 2 * (4 * D + 4 * D + D)  # three matrices, their columns' norms
    assert found["ttt_mlp"].costs[0].state_bytes == 4 * kept


class Picky(Backend):
    """A plug-in that looks at values, which the meta device has not."""

    name = "picky"
    summary = "looks at values"

    def begin(self, *args: Any, **kwargs: Any) -> Any:
        return float(self.proj.weight.sum())


def test_a_backend_that_fails_is_a_row_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "table", lambda: {**registry.BUILT_IN, "picky": "x:y", "no": ""})
    real = registry.backend_class
    monkeypatch.setattr(
        registry, "backend_class", lambda name: Picky if name == "picky" else real(name)
    )
    monkeypatch.setattr(registry, "origin", lambda name: "picky 1.0")
    found = report("picky", SIZES, (4, 8))
    assert found.problem is not None and found.problem.startswith("not measured, ")
    assert (found.summary, found.origin, found.costs) == ("looks at values", "picky 1.0", ())


def test_sizes() -> None:
    assert Sizes(1024, 16, 5, (28, 37)).tokens == 1041
    assert cost.Cost(10, 5 * 10**10, 0).gflops_per_view == 5.0
