"""A kernel that is wrong is seen, whichever step it is in; right ones pass with room to spare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vggt3.attention.base import Backend
from vggt3.attention.kernels.softmax import KERNELS
from vggt3.attention.memory import Delta
from vggt3.attention.ttt_mlp import TTTMLP
from vggt3.evaluation.benchmark.equality import Check, check_model, limit, relative
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3

CPU = torch.device("cpu")


def failed(model: VGGT3, dtype: torch.dtype = torch.float32) -> list[str]:
    return [check.name for check in check_model(model, dtype) if not check.passed]


@pytest.mark.parametrize("backend", ["softmax", "linear", "ttt_mlp", "ttt_shortconv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_ships_passes(backend: str, dtype: torch.dtype) -> None:
    found = check_model(VGGT3.build(TINY, backend).eval(), dtype)
    steps = [check.name for check in found if check.name.startswith(f"{backend}: ")]
    assert steps == [f"{backend}: {step}" for step in ("project", "write", "settle", "read")]
    assert max(check.error for check in found) < limit(CPU, dtype) / 2
    assert max(check.error for check in found) > 0  # something was compared


def test_options_and_schedules_are_checked_as_they_are() -> None:
    few = check_model(
        VGGT3.build(TINY, "softmax", max_views=2, kernel="math").eval(), torch.float32
    )
    assert all(check.passed for check in few)
    mixed = VGGT3.build(TINY, "softmax", schedule="0-1:linear,2-3:ttt_mlp").eval()
    names = {check.name.partition(":")[0] for check in check_model(mixed, torch.float32)}
    assert {"linear", "ttt_mlp"} <= names


def wrong(step: str, spoil: Callable[[Any], Any], patch: pytest.MonkeyPatch) -> None:
    """Spoil a step, but not its float64 reference."""
    plain = getattr(TTTMLP, step)

    def spoilt(self: Backend, *given: Any) -> Any:
        result = plain(self, *given)
        return result if self.qkv.weight.dtype == torch.float64 else spoil(result)

    patch.setattr(TTTMLP, step, spoilt)


@pytest.mark.parametrize(
    ("step", "spoil"),
    [
        (
            "project",
            lambda p: replace(p, tensors={**p.tensors, "k": p["k"].roll(1, dims=-1)}),
        ),
        ("write", lambda d: Delta({**d.sums, "g1": -d.sums["g1"]})),
        ("write", lambda d: Delta({**d.sums, "g2": 1.001 * d.sums["g2"]})),
        ("settle", lambda s: (s[0].map(lambda t: t * 1.001), s[1])),
        ("read", lambda out: out + float("nan")),
        ("read", lambda out: out[:, :1]),
    ],
)
def test_a_wrong_step_is_named(
    step: str, spoil: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VGGT3.build(TINY, "ttt_mlp").eval()
    wrong(step, spoil, monkeypatch)
    assert failed(model) == [f"ttt_mlp: {step}"]


def test_a_wrong_softmax_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VGGT3.build(TINY, "linear").eval()
    plain = KERNELS["flash"]

    def unscaled(q: Tensor, k: Tensor, v: Tensor, weight: Tensor | None) -> Tensor:
        return plain.run(q * 1.01, k, v, weight)

    monkeypatch.setitem(KERNELS, "flash", replace(plain, run=unscaled))
    assert failed(model) == ["flash, head width 32"]


def test_relative_error() -> None:
    a = torch.tensor([3.0, 4.0])
    assert relative(a * 1.1, a) == pytest.approx(0.1, abs=1e-6)
    assert relative(a[:1], a) == float("inf")
    assert relative(a * float("nan"), a) == float("inf")
    assert relative(a[:0], a[:0]) == 0.0
    assert not Check("x", float("inf"), 1.0).passed
