"""What is compiled is whole graphs: a break costs minutes of compiling and a recording."""

from __future__ import annotations

import functools
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


def graphs(backend: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    """How many a step is, none of which breaks."""
    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiling.compiled.cache_clear()
    try:
        torch.manual_seed(0)
        model = VGGT3.build(TINY, backend, **options)
        module = Training(model, LearningOptions(compile=True)).train()
        scene = smooth_scene()
        found = module.terms(scene)["loss"]
        counters = torch._dynamo.utils.counters
        assert not counters["graph_break"]
        with compiling.uncompiled():
            assert torch.equal(found, module.terms(scene)["loss"])
        return int(counters["stats"]["unique_graphs"])
    finally:
        compiling.compiled.cache_clear()
        torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["softmax", "ttt_shortconv"])
def test_no_graph_breaks_and_equal_layers_share_theirs(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert graphs(backend, monkeypatch) <= 12


def test_later_sweeps_are_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has a write of its own, which a third shares; each has its settling, for the
    number of a sweep is a constant."""
    one, two, three = (graphs("ttt_mlp", monkeypatch, sweeps=n) for n in (1, 2, 3))
    assert (two, three) == (one + 2, one + 3)
