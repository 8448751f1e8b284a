"""What is compiled is whole graphs: a break costs minutes of compiling and a recording."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.training.conftest import smooth_scene
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.training import compiling
from vggt3.training.module import LearningOptions, Training


def traced(function: Any = None, **options: Any) -> Any:
    """torch.compile as far as graphs go: found, and run as they are."""
    make = functools.partial(COMPILE, backend="eager", **options)
    return make if function is None else make(function)


COMPILE = torch.compile


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "compile", traced)
    _forget()
    yield
    _forget()


def _forget() -> None:
    torch._dynamo.reset()
    compiling.compiled.cache_clear()


def graphs(backend: str, held: list[Any] | None = None, **options: Any) -> int:
    """How many a step compiles, none of which breaks; references to the model go into ``held``."""
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    model = VGGT3.build(TINY, backend, **options)
    if held is not None:
        held += [weakref.ref(part) for part in (model, model.aggregator.block(0).attn)]
    module = Training(model, LearningOptions(compile=True)).train()
    scene = smooth_scene()
    found = module.terms(scene)["loss"]
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    with compiling.uncompiled():
        assert torch.equal(found, module.terms(scene)["loss"])
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("backend", ["softmax", "ttt_shortconv"])
def test_no_graph_breaks_and_equal_layers_share_theirs(backend: str) -> None:
    assert 0 < graphs(backend) <= 12


def test_later_sweeps_are_compiled_too() -> None:
    """The second has a write of its own, which a third shares; each has its settling, for the
    number of a sweep is a constant."""
    one = graphs("ttt_mlp", sweeps=1)
    _forget()
    two = graphs("ttt_mlp", sweeps=2)
    _forget()
    assert (two, graphs("ttt_mlp", sweeps=3)) == (one + 2, one + 3)


def test_fused_fast_weights_break_nothing() -> None:
    """With all that an adapter's leg asks of them."""
    pytest.importorskip("triton")
    leg: dict[str, Any] = {"sweeps": 2, "initial": "learned", "gate": True, "newton_schulz": 3}
    plain = graphs("ttt_shortconv", **leg)
    _forget()
    assert graphs("ttt_shortconv", **leg, fast_kernel="triton") == plain


def test_another_model_compiles_only_what_is_new_in_it() -> None:
    """So that a row of an ablation begins in a fraction of the first one's time."""
    held: list[Any] = []
    first = graphs("ttt_shortconv", held)
    assert graphs("ttt_shortconv") == 0
    gc.collect()
    assert [reference() for reference in held] == [None, None], "nor is the first one kept"
    assert 0 < graphs("ttt_shortconv", gate=True) <= first // 2
    assert 0 < graphs("softmax") <= first // 2
