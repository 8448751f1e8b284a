"""Where tensors lie and what is computed again changes no bit, and no mode strays from forward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.inference.test_engine import BACKENDS, Kept, loud, photos, relative
from vggt3 import checks
from vggt3.attention.base import Backend, Context, Projection
from vggt3.attention.softmax import Softmax
from vggt3.attention.ttt_mlp import TTTMLP
from vggt3.geometry.camera import decode_pose
from vggt3.inference import engine as engine_module
from vggt3.inference.engine import Engine, Outcome
from vggt3.inference.features import Features
from vggt3.inference.options import RunOptions
from vggt3.inference.plan import Plan
from vggt3.inference.shelf import HostShelf
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.types import ViewGroup, Views

CONFIG = replace(TINY, layers=4, feature_layers=(0, 1, 2, 3), camera_iterations=2)
MODES: dict[str, dict[str, object]] = {
    "again": {"keep": False},
    "projected": {"features": "projected"},
    "split": {"near": 1},
    "host": {"near": 0, "keep": False},
    "projected-host": {"features": "projected", "near": 0},
    "host-tokens": {"host_tokens": True},
    "host-tokens-again": {"host_tokens": True, "keep": False, "near": 0},
    "replay": {"features": "replay"},
    "replay-host-tokens": {"features": "replay", "host_tokens": True, "keep": False},
}


def engine_of(backend: str, chunk: int, **options: object) -> Engine:
    model = loud(VGGT3.build(CONFIG, backend, **options))
    for token in (model.aggregator.camera_token, model.aggregator.register_token):
        torch.nn.init.normal_(token)  # so that whose tokens a view has can be seen
    return Engine(model, RunOptions("cpu", chunk=chunk, points_from="head"))


def run(engine: Engine, views: Views, plan: Plan | None = None) -> tuple[Kept, Outcome]:
    kept = Kept()
    return kept, engine.run(views, kept, plan=plan)


def same_bits(found: Kept, expected: Kept) -> bool:
    pairs = [(found.found.camera_from_world, expected.found.camera_from_world)]
    for i, view in expected.views.items():
        pairs.append((found.views[i].depth, view.depth))
        pairs.append((found.views[i].points, view.points))
        pairs.append((found.views[i].points_confidence, view.points_confidence))
    return found.views.keys() == expected.views.keys() and all(torch.equal(*p) for p in pairs)


def check_forward(found: Kept, model: VGGT3, views: Views) -> None:
    with torch.no_grad():
        expected = model(views)
    for group, maps in zip(views.groups, expected.dense, strict=True):
        for n, i in enumerate(group.ids):
            assert relative(found.views[i].depth, maps.depth[0, n]) < 1e-5
            assert relative(found.views[i].points, maps.points[0, n]) < 1e-5
            camera, _ = decode_pose(expected.pose[0, i], group.size)
            assert relative(found.found.camera_from_world[i], camera) < 1e-5


@pytest.mark.parametrize(
    ("backend", "chunk", "masked"),
    [(backend, 2, masked) for backend in BACKENDS for masked in (False, True)]
    + [(backend, chunk, False) for backend in ("softmax", "ttt_shortconv") for chunk in (1, 64)],
)
def test_every_mode_gives_the_bits_of_the_first(backend: str, chunk: int, masked: bool) -> None:
    """Three groups, the first view among others; kept raw on the device is what the rest equal."""
    sweeps = {"sweeps": 3} if backend.startswith("ttt") else {}
    engine = engine_of(backend, chunk, **sweeps)
    views = Views.from_list(photos())
    if masked:
        views = _masked(views)
    plan = engine.plan(views)
    assert (plan.keep, plan.features, plan.near, plan.host_tokens) == (True, "raw", plan.chunks, 0)
    expected, _ = run(engine, views, plan)
    check_forward(expected, engine.model, views)
    for name, changes in MODES.items():
        assert same_bits(run(engine, views, replace(plan, **changes))[0], expected), name  # type: ignore[arg-type]


def _masked(views: Views) -> Views:
    """Some patches masked out and the others partly present."""
    generator = torch.Generator().manual_seed(2)

    def masked(group: ViewGroup) -> ViewGroup:
        shape = (1, len(group.ids), *group.grid)
        weight = torch.rand(shape, generator=generator)
        return replace(group, weight=weight.masked_fill(weight < 0.3, 0.0))

    return replace(views, groups=tuple(masked(group) for group in views.groups))


def test_modes_agree_in_bf16() -> None:
    """Products in bf16: the modes still share their bits, and chunks stay within 5e-3."""
    model = engine_of("ttt_shortconv", 2).model
    engine = Engine(model, RunOptions("cpu", "bf16", chunk=2, points_from="head"))
    views = Views.from_list(photos())
    plan = engine.plan(views)
    expected, _ = run(engine, views, plan)
    for name, changes in MODES.items():
        assert same_bits(run(engine, views, replace(plan, **changes))[0], expected), name  # type: ignore[arg-type]
    with torch.no_grad():
        whole = engine.model(views)
    for group, maps in zip(views.groups, whole.dense, strict=True):
        for n, i in enumerate(group.ids):
            assert relative(expected.views[i].depth, maps.depth[0, n].float()) < 5e-3


def test_key_views_and_a_schedule_can_be_replayed() -> None:
    """A survey's plan, softmax with a bounded memory, another backend behind it."""
    schedule = {"schedule": "0-1:softmax,2-3:ttt_mlp", "max_views": 2}
    engine, views = engine_of("softmax", 2, **schedule), Views.from_list(photos())
    plan = engine.plan(views)
    expected, _ = run(engine, views, plan)
    check_forward(expected, engine.model, views)
    for name in ("replay", "replay-host-tokens"):
        assert same_bits(run(engine, views, replace(plan, **MODES[name]))[0], expected), name  # type: ignore[arg-type]


@pytest.mark.parametrize("features", ["raw", "replay"])
def test_every_projection_knows_its_layers_plan(
    monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
    """Also those that are made again: for the read, by then of a layer before, and in replay."""
    seen: dict[type, set[bool]] = {}

    def watch(cls: type[Softmax] | type[TTTMLP]) -> None:
        project = cls.project

        def watched(self: Backend, tokens: Tensor, context: Context) -> Projection:
            seen.setdefault(cls, set()).add(context.plan is not None)
            return project(self, tokens, context)  # type: ignore[arg-type]

        monkeypatch.setattr(cls, "project", watched)

    schedule = {"schedule": "0:softmax,1:ttt_mlp,2:softmax,3:ttt_mlp", "max_views": 2}
    engine, views = engine_of("softmax", 2, **schedule), Views.from_list(photos())
    plan = replace(engine.plan(views), keep=False, features=features)
    for cls in (Softmax, TTTMLP):
        watch(cls)
    run(engine, views, plan)
    assert seen == {Softmax: {True}, TTTMLP: {False}}


def test_the_first_view_is_itself_again() -> None:
    """What makes replay differ from a query: the chunk of view 0 has the first view's tokens."""
    engine, views = engine_of("ttt_mlp", 2), Views.from_list(photos())
    _, outcome = run(engine, views)
    memory, group = outcome.memory, views.chunked(2).groups[0]
    chunk = Views((group,), views.total)
    with torch.no_grad():
        again = engine.model.read(chunk, memory=memory, own=True).camera_tokens
        query = engine.model.read(chunk, memory=memory).camera_tokens
    assert group.ids[0] == 0
    assert torch.equal(again, memory.camera_tokens[:, list(group.ids)])
    assert relative(query[:, 0], again[:, 0]) > 0.1
    assert torch.equal(query[:, 1], again[:, 1])


def test_host_shelves_are_used_and_left_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Watched] = []

    class Watched(HostShelf):
        def __init__(self, *given: object, **more: object) -> None:
            super().__init__(*given, **more)  # type: ignore[arg-type]
            self.put = 0
            made.append(self)

        def __setitem__(self, key: int, x: Tensor) -> None:
            self.put += 1
            super().__setitem__(key, x)

    monkeypatch.setattr(engine_module, "HostShelf", Watched)
    monkeypatch.setattr("vggt3.inference.features.HostShelf", Watched)
    engine, views = engine_of("linear", 2), Views.from_list(photos())
    plan = replace(engine.plan(views), near=1, features="projected", host_tokens=True)
    assert plan.chunks == 3
    run(engine, views, plan)
    features, tokens = made
    assert features.put == 2 * 4 * 2  # chunks beyond the first, layers, heads
    assert features._rooms == {}
    assert tokens.put == plan.chunks * (1 + CONFIG.layers)


@pytest.mark.parametrize("mode", ["split", "host-tokens", "replay"])
def test_bits_repeat(mode: str) -> None:
    engine, views = engine_of("ttt_shortconv", 2), Views.from_list(photos())
    plan = replace(engine.plan(views), **MODES[mode])  # type: ignore[arg-type]
    assert same_bits(run(engine, views, plan)[0], run(engine, views, plan)[0])


def test_one_view_in_every_mode() -> None:
    engine, views = engine_of("ttt_shortconv", 1000), Views.from_list(photos()[:1])
    plan = engine.plan(views)
    expected, _ = run(engine, views, plan)
    for name, changes in MODES.items():
        assert same_bits(run(engine, views, replace(plan, **changes))[0], expected), name  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_dense_heads_the_rest_has_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    whole, views = engine_of(backend, 2), Views.from_list(photos())
    engine = Engine(whole.model, whole.options, dense=False)
    plan, usual = engine.plan(views), whole.plan(views)
    for part in ("features for the heads", "work of the dense heads"):
        assert dict(plan.parts).get(part, 0) == 0 < dict(usual.parts)[part]
    assert plan.needed < usual.needed and not plan.host_parts
    assert dict(plan.describe())["features"] == "none"
    expected, outcome = run(whole, views)

    def unwanted(*given: object) -> None:
        raise AssertionError

    monkeypatch.setattr(engine.model, "dense", unwanted)
    monkeypatch.setattr(Features, "take", unwanted)
    for changes in ({}, {"keep": False}, {"host_tokens": True}):
        kept, found = run(engine, views, replace(plan, **changes))  # type: ignore[arg-type]
        assert kept.views == {}
        assert torch.equal(kept.found.camera_from_world, expected.found.camera_from_world)
        assert torch.equal(found.memory.camera_tokens, outcome.memory.camera_tokens)
        for one, other in zip(found.memory.states, outcome.memory.states, strict=True):
            assert all(torch.equal(one[name], tensor) for name, tensor in other.tensors.items())


def test_without_dense_heads_more_fits_and_no_wish_for_them_counts() -> None:
    whole, sizes = engine_of("softmax", 2), [(224, 224)] * 400
    engine = Engine(whole.model, whole.options, dense=False)
    needed = engine.plan_sizes(sizes).needed
    for features in ("auto", "replay", "projected-host"):
        engine.options = replace(whole.options, memory=needed, features=features)
        assert engine.plan_sizes(sizes).needed == needed
    whole.options = replace(whole.options, memory=needed)
    with pytest.raises(checks.PlanError, match="at least"):
        whole.plan_sizes(sizes)


class Failing:
    """A model's method that has no memory for chunks above a size."""

    def __init__(self, method: object, most: int, after: int = 0) -> None:
        self.method, self.most, self.calls, self.after = method, most, 0, after

    def __call__(self, features: object, group: ViewGroup) -> object:
        self.calls += 1
        if len(group.ids) > self.most and self.calls > self.after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 TiB.")
        return self.method(features, group)  # type: ignore[operator]


@pytest.mark.parametrize("after", [0, 1], ids=["at once", "after some views were given"])
@pytest.mark.parametrize("features", ["raw", "replay"])
def test_out_of_memory_is_tried_again_at_half_the_chunk(
    monkeypatch: pytest.MonkeyPatch, after: int, features: str
) -> None:
    engine, views = engine_of("ttt_mlp", 2), Views.from_list([*photos(), *photos()])
    engine.options = replace(engine.options, chunk=None, features=features)
    expected, plain = run(engine, views)
    assert plain.notes == ()
    monkeypatch.setattr(engine.model, "dense", Failing(engine.model.dense, 2, after))
    seen: list[int] = []

    class Counting(Kept):
        def add(self, view: object) -> None:
            seen.append(view.index)  # type: ignore[attr-defined]
            super().add(view)  # type: ignore[arg-type]

    kept = Counting()
    outcome = engine.run(views, kept)
    assert outcome.notes == ("out of memory with 4 views at a time; done again with 2",)
    assert (outcome.plan.chunk, outcome.plan.features) == (2, features)
    assert sorted(seen) == list(range(10))
    for i, view in expected.views.items():
        assert relative(kept.views[i].depth, view.depth) < 1e-5


def test_out_of_memory_twice_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, views = engine_of("ttt_mlp", 4), Views.from_list([*photos(), *photos()])
    monkeypatch.setattr(engine.model, "dense", Failing(engine.model.dense, 0))
    with pytest.raises(
        checks.PlanError, match=r"'CUDA out of memory' with 4 and with 2 views at a time; give"
    ):
        run(engine, views)
    engine.options = replace(engine.options, chunk=1)
    with pytest.raises(checks.PlanError, match=r"one view at a time; .* or --features replay$"):
        run(engine, views)
    engine = Engine(engine.model, engine.options, dense=False)
    group = views.groups[0]
    monkeypatch.setattr(engine.model, "read", lambda *_: Failing(None, 0)(None, group))
    with pytest.raises(checks.PlanError, match=r"one view at a time; give less --memory$"):
        run(engine, views)
