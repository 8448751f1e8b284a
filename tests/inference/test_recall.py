"""Recall tells the mapped place from others, and confidence puts it between two marks."""

from __future__ import annotations

import math

import pytest
import torch

from tests.inference.conftest import engine_of
from vggt3.attention.base import Backend
from vggt3.attention.linear import Linear
from vggt3.attention.registry import LayerSpec
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene
from vggt3.inference.localise import Localizer, QueryOptions
from vggt3.inference.mapping import map_taken, recall_of
from vggt3.inference.options import RunOptions
from vggt3.inference.recall import Familiarity, spread_out, strangers
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.taking import take
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.types import Views


def room(index: int, views: int) -> torch.Tensor:
    """Photos of a room that nothing else of the project draws."""
    look = {"outdoors": 0.0, "abstract": 0.0, "spread": (0.2, 0.4)}
    config = ProceduralConfig(views=views, size=(112, 112), **look)
    images = render(draw_scene(config, 2**70 + 2, index)).images[0]
    return (images * 255).round().to(torch.uint8)


def test_the_shipped_model_knows_its_room() -> None:
    """Six photos mapped; two more of the room, and two of each of two others, are asked."""
    engine = SceneEngine(open_model(ModelChoice()).model, RunOptions("cpu"))
    mine = room(0, 8)
    scene = map_taken(engine, take(Views.from_tensor(mine[[0, 1, 3, 4, 6, 7]]), 112))
    asked = torch.cat([mine[[2, 5]], room(1, 2), room(2, 2)])
    localizer = Localizer(engine, scene, QueryOptions(dense=False))
    found = [answer.confidence for answer in localizer.ask(Views.from_tensor(asked))]
    assert min(found[:2]) > 0.5 > max(found[2:]), found


def test_confidence_lies_between_the_marks() -> None:
    marks = Familiarity(own=0.9, elsewhere=0.5)
    low, middle, high = marks.confidence(torch.tensor([0.5, 0.7, 0.9])).tolist()
    assert low < 0.1 < middle < 0.95 < high
    rising = marks.confidence(torch.linspace(-1, 1, 201))
    assert bool((rising.diff() >= 0).all())
    assert bool(((rising >= 0) & (rising <= 1)).all())
    assert math.isnan(marks.confidence(torch.tensor([math.nan]))[0])
    # A model that tells nothing apart is not blown up to certainty.
    level = Familiarity(0.5, 0.5).confidence(torch.tensor([0.499, 0.501]))
    assert float((level[1] - level[0]).abs()) < 0.5


def test_recall_of_chunks_is_that_of_all() -> None:
    engine = engine_of(LayerSpec("ttt_mlp"))
    images = torch.rand(1, 4, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    scene = map_taken(engine, take(Views.from_tensor(images), 42))
    whole = recall_of(engine, scene.memory, images)
    for n in range(4):
        alone = recall_of(engine, scene.memory, images[:, [n]])
        assert torch.allclose(alone, whole[[n]], atol=1e-5)
    assert scene.familiarity.own == float(whole.median())


def test_a_backend_that_cannot_recall_has_no_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(LayerSpec("linear"))
    monkeypatch.setattr(Linear, "recall", Backend.recall)
    images = torch.rand(1, 3, 3, 28, 28)
    scene = map_taken(engine, take(Views.from_tensor(images), 28))
    assert math.isnan(scene.familiarity.own)
    (answer,) = Localizer(engine, scene).ask(Views.from_tensor(images[:, :1]))
    assert math.isnan(answer.confidence)


def test_strangers_are_photos_of_the_size_asked_for() -> None:
    large = strangers((210, 336), 2)
    assert (large.shape, large.dtype) == ((2, 3, 210, 336), torch.uint8)
    assert float(large.float().std()) > 10
    assert not torch.equal(large[0], large[1])
    assert strangers((210, 336), 2) is large


def test_spread_out() -> None:
    assert spread_out(3, 12) == [0, 1, 2]
    assert spread_out(100, 3) == [0, 50, 99]
    assert spread_out(1, 12) == [0]
