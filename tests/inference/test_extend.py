"""Extension is what its definition says, on every backend that has one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vggt3
from tests.attention.scenes import photos
from tests.inference.conftest import EXTENSIBLE, engine_of, label, questions, relative
from vggt3 import checks
from vggt3.attention.base import Backend, Context
from vggt3.attention.fast_weights import column_norms, newton_schulz
from vggt3.attention.memory import Delta, State
from vggt3.attention.registry import LayerSpec
from vggt3.attention.rope import Rope
from vggt3.geometry.camera import decode_pose, invert_pose
from vggt3.geometry.rotation import random_rotation
from vggt3.inference.extend import distance, extend_taken, share_of
from vggt3.inference.identity import ModelIdentity
from vggt3.inference.mapping import map_taken
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.shelf import HostShelf
from vggt3.inference.taking import take
from vggt3.types import Views

TTT = LayerSpec("ttt_shortconv")


def mapped(engine: SceneEngine, count: int = 3) -> SceneMemory:
    return map_taken(engine, take(Views.from_list(photos(count=count)), 42))


def defined(attn: Backend, state: State, delta: Delta, share: float) -> dict[str, Tensor]:
    """The settled state after an extension, as the issue words it."""
    if not attn.name.startswith("ttt"):
        sums = {k: state[k] + t for k, t in delta.sums.items()}
        return sums | {k: torch.cat([state[k], t], dim=1) for k, t in delta.lists.items()}
    found = {}
    for n in range(3):
        moved = state[f"w{n}"] + share * newton_schulz(delta.sums[f"g{n}"], 5)
        found[f"w{n}"] = moved * state[f"norm{n}"] / (column_norms(moved) + 1e-5)
    return found


@pytest.mark.parametrize("chunk", [1, 64])
@pytest.mark.parametrize("spec", EXTENSIBLE, ids=label)
def test_the_definition(spec: LayerSpec, chunk: int) -> None:
    """Layer by layer by hand: write once to the settled state, step by share, read what results."""
    engine = engine_of(spec, chunk)
    model, scene = engine.model, mapped(engine)
    images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(3))
    grown = extend_taken(engine, scene, take(Views.from_tensor(images), 42))
    tokens = 2 * (2 * 3 + model.config.special)
    share = tokens / (scene.tokens + tokens)
    assert (grown.tokens, share_of(scene, tokens)) == (scene.tokens + tokens, share)
    with torch.no_grad():
        x = model.aggregator.start(model.encoder(images[0])[None], [False, False])
        heads = model.config.width // model.config.heads
        rope = Rope.of_grid((2, 3), model.config.special, heads, x.device)
        context = Context((0, 1), (2, 3), rope)
        for layer, state in enumerate(scene.memory.states):
            block = model.aggregator.block(layer)
            frame, _ = model.aggregator.frame(layer, x, rope)
            projection = block.attn.project(block.norm1(frame), context)
            delta = block.attn.write(projection, state)
            expected = defined(block.attn, state, delta, share)
            for name, tensor in expected.items():
                assert relative(grown.memory.states[layer][name], tensor) < 1e-5, (layer, name)
            x, _ = block.read(frame, projection, state.updated(expected))
        rows = torch.cat([frame[:, :, 0], x[:, :, 0]], dim=-1)
        assert relative(grown.memory.camera_tokens[:, 3:], rows) < 1e-5
        assert torch.equal(grown.memory.camera_tokens[:, :3], scene.memory.camera_tokens)
        both = torch.cat([scene.memory.camera_tokens, rows], dim=1)
        pose = model.camera_head(both)[-1][0, 3:]
    cameras = grown.cameras.camera_from_world
    assert torch.equal(cameras[:3], scene.cameras.camera_from_world)
    assert relative(cameras[3:], decode_pose(pose, (28, 42))[0]) < 1e-5


def test_the_first_layer_of_sums_and_lists_is_that_of_all_at_once() -> None:
    """There no view has seen another yet, and what is added is what would have been written."""
    for name in ("softmax", "linear"):
        engine = engine_of(LayerSpec(name))
        grown = extend_taken(engine, mapped(engine), take(questions(2), 42))
        scene = Views.from_list([*photos(count=3), *_images(questions(2))])
        at_once = map_taken(engine, take(scene, 42))
        for key, tensor in at_once.memory.states[0].tensors.items():
            # Lists are in the order of groups and chunks, which is another: compare their sums.
            one, other = grown.memory.states[0][key], tensor
            if name == "softmax":
                one, other = one.sum(1), other.sum(1)
            assert relative(one, other) < 1e-5
        away = distance(grown, at_once, 2) if name == "linear" else None
        assert away is None or away.states > 1e-3  # deeper layers differ: an approximation


def _images(views: Views) -> list[Tensor]:
    found = {i: g.images[0, n] for g in views.groups for n, i in enumerate(g.ids)}
    return [found[i] for i in range(views.total)]


def test_distance_knows_what_differs() -> None:
    """Units are each scene's own; what is left after aligning them is the distance."""
    engine = engine_of(TTT)
    scene = mapped(engine, 5)
    centres = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    turns = random_rotation((5,), torch.Generator().manual_seed(0))
    scene = standing(scene, turns, centres)
    nothing = distance(scene, scene, 1)
    assert (nothing.states, nothing.scale) == (0.0, pytest.approx(1.0))
    assert nothing.cameras.rotation_deg < 1e-3
    assert nothing.cameras.centre < 1e-5
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = turns.clone()
    turned[-1] = turned[-1] @ quarter
    states = tuple(s.map(lambda t: 2 * t) for s in scene.memory.states)
    other = replace(
        standing(scene, turned, centres / 4), memory=replace(scene.memory, states=states)
    )
    found = distance(other, scene, 1)
    assert found.states == pytest.approx(1.0)
    assert found.scale == pytest.approx(4.0, rel=1e-4)
    assert found.cameras.rotation_deg == pytest.approx(90, abs=1e-2)
    assert found.cameras.centre == pytest.approx(0, abs=1e-4)
    still = standing(scene, turns, torch.zeros(5, 3))
    assert distance(still, still, 2).scale == 1


def standing(scene: SceneMemory, turns: Tensor, centres: Tensor) -> SceneMemory:
    """The scene with its cameras turned and placed so."""
    poses = invert_pose(torch.cat([turns, centres[..., None]], dim=-1))
    return replace(scene, cameras=replace(scene.cameras, camera_from_world=poses))


def test_a_scene_grows_again_and_again_and_stays_what_it_was() -> None:
    engine = engine_of(TTT)
    scene = mapped(engine)
    before = {k: t.clone() for k, t in scene.packed().tensors.items()}
    once = vggt3.extend(engine.model, scene, questions(2), RunOptions("cpu"))
    twice = vggt3.extend(engine.model, once, questions(2, seed=9), RunOptions("cpu"))
    assert all(torch.equal(t, before[k]) for k, t in scene.packed().tensors.items())
    assert [len(s) for s in (scene, once, twice)] == [3, 5, 7]
    assert len(set(twice.names)) == 7
    assert twice.names[3:] == (
        "extension-1/view 0", "extension-1/view 1", "extension-2/view 0", "extension-2/view 1",
    )  # fmt: skip
    assert twice.record["extensions"] == [2, 2]
    assert once.state_bytes == scene.state_bytes


def test_files_that_the_scene_holds_are_refused_before_they_are_read(tmp_path: Path) -> None:
    engine = engine_of(TTT)
    scene = replace(mapped(engine), names=("a.jpg", "b.jpg", "c.jpg"))
    for name in ("b.jpg", "c.jpg", "d.jpg"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(checks.DataError, match=r"got 'b\.jpg' and 1 more that it holds already"):
        vggt3.extend(engine.model, scene, tmp_path, RunOptions("cpu"))
    with pytest.raises(checks.DataError, match="not a picture"):  # a new name goes on
        vggt3.extend(engine.model, scene, tmp_path / "d.jpg", RunOptions("cpu"))


@pytest.mark.parametrize("spec", EXTENSIBLE, ids=label)
def test_the_plan_weighs_the_old_scene_beside_the_new(spec: LayerSpec) -> None:
    engine = engine_of(spec)
    scene, more = mapped(engine, 5), take(questions(3), 42)
    grown = extend_taken(engine, scene, more)
    parts = dict(engine.plan(more.views, scene.cameras.sizes).parts)
    assert parts["scene memory"] == scene.state_bytes + grown.state_bytes
    assert parts["features for the heads"] == 0


def test_a_scene_that_leaves_no_room_is_not_extended() -> None:
    engine = engine_of(LayerSpec("softmax"))
    scene, more = mapped(engine, 60), take(questions(1), 42)
    engine.options = replace(engine.options, memory=engine.plan(more.views).needed)
    with pytest.raises(checks.PlanError, match=r"the plan for 1 view must fit"):
        extend_taken(engine, scene, more)


def test_tokens_on_the_host_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Watched(HostShelf):
        def __setitem__(self, key: int, x: Tensor) -> None:
            made.append(key)
            super().__setitem__(key, x)

    engine = engine_of(TTT, 1)
    scene, more = mapped(engine), take(questions(2), 42)
    expected = extend_taken(engine, scene, more).packed().tensors
    monkeypatch.setattr("vggt3.inference.engine.HostShelf", Watched)
    engine.options = replace(engine.options, tokens="host")
    found = extend_taken(engine, scene, more).packed().tensors
    assert set(made) == {0, 1}
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_out_of_memory_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(TTT)
    scene, more = mapped(engine), take(Views.from_tensor(torch.rand(1, 4, 3, 28, 42)), 42)
    expected, read = extend_taken(engine, scene, more), engine.model.read

    def narrow(views: Views, *given: object, **more: object) -> object:
        if max(len(group.ids) for group in views.groups) > 2 and more:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 TiB.")
        return read(views, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.model, "read", narrow)
    found = extend_taken(engine, scene, more)
    assert found.record["notes"] == ["out of memory with 4 views at a time; done again with 2"]
    for one, other in zip(found.memory.states, expected.memory.states, strict=True):
        assert all(relative(one[name], tensor) < 1e-5 for name, tensor in other.tensors.items())
    cameras = found.cameras.camera_from_world
    assert relative(cameras, expected.cameras.camera_from_world) < 1e-5


def test_a_scene_grows_by_the_rule_that_it_was_mapped_by() -> None:
    """Options that leave tensors alone may change a step: five orthogonalising are not three."""
    spelled = LayerSpec("ttt_mlp", (("newton_schulz", 5), ("sweeps", 3)))  # 5 is the default
    engine, more = engine_of(LayerSpec("ttt_mlp")), take(questions(1), 42)
    scene = mapped(engine)
    assert len(extend_taken(engine_of(spelled), scene, more)) == 4
    other = engine_of(LayerSpec("ttt_mlp", (("newton_schulz", 3),)))
    with pytest.raises(checks.UsageError, match=r"--attention\.newton_schulz must be the 5 .* 3"):
        extend_taken(other, scene, more)
    with pytest.raises(checks.UsageError, match="newton_schulz"):  # before photos are looked for
        vggt3.extend(other.model, scene, "nowhere", RunOptions("cpu"))


def test_layers_are_the_same_after_a_file_and_differ_by_place() -> None:
    """A file has lists where options have tuples; equal tensors may be another schedule's."""
    softmax, linear = LayerSpec("softmax"), LayerSpec("linear", (("places", (1, 3)),))
    whole = engine_of(softmax).identity
    mixed = replace(whole, layers=(linear, softmax, softmax))
    again = ModelIdentity.from_data(json.loads(json.dumps(mixed.to_data())))
    assert again == mixed
    assert (whole.schedule, mixed.schedule) == ("softmax", "0:linear,1-2:softmax")
    with pytest.raises(checks.DataError, match=r"0:linear,1-2:softmax.*0-1:linear,2:softmax"):
        mixed.hold(replace(whole, layers=(linear, linear, softmax)))


def test_what_cannot_grow() -> None:
    surveyed = engine_of(LayerSpec("softmax", (("max_views", 2),)))
    with pytest.raises(checks.UsageError, match="no survey"):
        extend_taken(surveyed, mapped(surveyed), take(questions(1), 42))
    engine = engine_of(LayerSpec("softmax"))
    with pytest.raises(checks.PlanError, match="a scene of 5 photos must take at most 50"):
        extend_taken(engine, mapped(engine), take(questions(2), 42), "50K")
    with pytest.raises(checks.DataError, match="global attention"):
        extend_taken(engine_of(LayerSpec("linear")), mapped(engine), take(questions(1), 42))
