"""In a whole model: chunks, groups, order and what is kept change nothing, for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.attention.scenes import by_view, model_of, photos, with_masks
from tests.attention.variants import SPECS, label, relative
from vggt3.attention.registry import LayerSpec, plan_layers
from vggt3.model.scene import Conduct, Memory
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

every_backend = pytest.mark.parametrize("spec", SPECS, ids=label)
LIMIT = 1e-5
KEEP, AGAIN = Conduct(), Conduct(keep=False)

Seen = tuple[Mapping[int, Tensor], Tensor]


def see(model: VGGT3, views: Views, conduct: Conduct = KEEP, memory: Memory | None = None) -> Seen:
    """Every view's tokens, and every view's pose."""
    trunk = model.read(views, conduct, memory)
    return by_view(trunk, views), model.poses(trunk, memory)[-1]


def check_equal(found: Seen, expected: Seen) -> None:
    assert found[0].keys() == expected[0].keys()
    for i, tokens in expected[0].items():
        assert relative(found[0][i], tokens) < LIMIT, i
    assert relative(found[1], expected[1]) < LIMIT


@every_backend
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@torch.no_grad()
def test_chunks_change_nothing(spec: LayerSpec, masked: bool) -> None:
    """Borders inside groups and between them; groups in another order; two passes or one."""
    model, views = model_of(spec), Views.from_list(photos())
    views = with_masks(views) if masked else views
    expected = see(model, views)
    assert [len(group.ids) for group in views.groups] == [3, 2]
    check_equal(see(model, views, AGAIN), expected)
    for size in (1, 2):
        for conduct in (KEEP, AGAIN):
            check_equal(see(model, views.chunked(size), conduct), expected)
    pieces = views.chunked(1).groups
    check_equal(see(model, replace(views, groups=pieces[::-1])), expected)


@every_backend
@torch.no_grad()
def test_the_order_of_the_other_views_is_free(spec: LayerSpec) -> None:
    model, images = model_of(spec), photos()
    order = [0, 3, 1, 4, 2]
    tokens, poses = see(model, Views.from_list(images))
    moved = see(model, Views.from_list([images[i] for i in order]))
    check_equal(moved, ({n: tokens[i] for n, i in enumerate(order)}, poses[:, order]))


@every_backend
@torch.no_grad()
def test_scenes_of_a_batch_never_meet(spec: LayerSpec) -> None:
    """Two scenes side by side equal each alone, also where their key views differ."""
    model = model_of(spec)
    scenes = torch.rand(2, 4, 3, 28, 42)
    tokens, poses = see(model, Views.from_tensor(scenes))
    for b in range(2):
        alone = see(model, Views.from_tensor(scenes[b]))
        check_equal(alone, ({i: t[b : b + 1] for i, t in tokens.items()}, poses[b : b + 1]))


@every_backend
@torch.no_grad()
def test_queries_read_and_do_not_write(spec: LayerSpec) -> None:
    """A query's answer is its own, whoever asks beside it, and the map stays as it was."""
    model, images = model_of(spec), photos()
    trunk = model.read(Views.from_list(images[:3]))
    memory = Memory(trunk.states, trunk.camera_tokens)
    before = [{k: t.clone() for k, t in state.tensors.items()} for state in memory.states]
    tokens, poses = see(model, Views.from_list(images[3:]), memory=memory)
    for n, image in enumerate(images[3:]):
        alone = see(model, Views.from_list([image]), memory=memory)
        check_equal(alone, ({0: tokens[n]}, poses[:, n : n + 1]))
    for state, tensors in zip(memory.states, before, strict=True):
        assert all(torch.equal(state[k], tensor) for k, tensor in tensors.items())


@torch.no_grad()
def test_a_schedule_of_two_backends() -> None:
    spec = plan_layers("softmax", {"schedule": "0:softmax,1:ttt_mlp", "max_views": 2}, 2)
    assert [s.name for s in spec] == ["softmax", "ttt_mlp"]
    mixed = VGGT3(model_of(spec[0]).config, spec).eval()
    views = Views.from_list(photos())
    check_equal(see(mixed, views.chunked(1)), see(mixed, views))


@every_backend
def test_checkpoint_regions_change_no_gradient(spec: LayerSpec) -> None:
    views = Views.from_list(photos(dtype=torch.float64, count=3))
    found = []
    for conduct in (Conduct(), Conduct(checkpoint=True)):
        model = model_of(spec, dtype=torch.float64).train()
        trunk = model.read(views, conduct)
        loss = sum(tokens.square().mean() for tokens in by_view(trunk, views).values())
        assert isinstance(loss, Tensor)
        loss.backward()
        gradient = [p.grad for p in model.aggregator.parameters()]
        assert all(g is not None and g.any() for g in gradient)
        found.append(torch.cat([g.flatten() for g in gradient if g is not None]))
    assert relative(found[1], found[0]) < 1e-12
