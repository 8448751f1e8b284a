"""The plan: what it gives up first, what it refuses, and that it counts what is really held."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vggt3 import checks
from vggt3.inference.measure import measure
from vggt3.inference.options import RunOptions, Wishes, parse_bytes
from vggt3.inference.plan import SLACK, Plan, make_plan
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

SIZES = [(224, 224)] * 4_000
MUCH = parse_bytes("640G")


@pytest.fixture(scope="module")
def model() -> VGGT3:
    return VGGT3.build(TINY, "ttt_shortconv").eval()


def plan_of(model: VGGT3, budget: int, host: int | None = None, **wishes: object) -> Plan:
    return make_plan(model, SIZES, budget, torch.float32, Wishes(**wishes), host)  # type: ignore[arg-type]


def bytes_of(plan: Plan) -> dict[str, int]:
    return dict(plan.parts)


def way(plan: Plan) -> tuple[bool, str, bool, bool]:
    return plan.keep, plan.features, plan.near < plan.chunks, plan.host_tokens


def test_what_is_given_up_first(model: VGGT3) -> None:
    """From much memory to little, with a host beside it."""
    wide = plan_of(model, MUCH, MUCH)
    assert (wide.chunk, *way(wide)) == (8, True, "raw", False, False)
    seen, budget, last = [way(wide)], wide.needed, None
    while last is None:
        try:
            plan = plan_of(model, budget, MUCH)
        except checks.PlanError as error:
            last = str(error)
        else:
            assert plan.needed <= budget
            assert plan.host_needed <= MUCH
            if way(plan) not in seen:
                seen.append(way(plan))
            budget = int(budget * 0.93)
    order = sorted(seen, key=lambda w: (w[3], w[2], not w[0], w[1] == "projected"))
    assert seen == order
    assert {
        (True, "projected", False, False),
        (False, "projected", False, False),
        (False, "projected", True, False),
        (False, "projected", True, True),
    } <= set(seen)
    assert "smaller --long-side" in last


def test_replay_is_for_little_memory_and_no_host(model: VGGT3) -> None:
    kept = plan_of(model, MUCH, 0, projections="again", features="projected", chunk=8)
    features = bytes_of(kept)["features for the heads"]
    plan = plan_of(model, kept.needed - int(features * 0.9), 0)
    assert way(plan) == (False, "replay", False, False)
    assert bytes_of(plan)["features for the heads"] == 0
    assert plan.host_parts == ()


def test_a_host_is_not_chosen_where_it_is_the_same_memory(model: VGGT3) -> None:
    with_host = plan_of(model, MUCH, MUCH, features="raw-host", tokens="host")
    tight = int(with_host.needed * 0.2)
    assert plan_of(model, tight, MUCH).host_parts
    assert not plan_of(model, tight, None).host_parts
    forced = plan_of(model, MUCH, None, tokens="host")
    assert forced.host_tokens
    tokens = dict(forced.host_parts)["tokens"]
    assert forced.needed == int(SLACK * (sum(bytes_of(forced).values()) + tokens))


def test_sizes_are_those_of_the_tensors(model: VGGT3) -> None:
    sizes = [(56, 42), (28, 28), (56, 42)]
    scale = measure(model, sizes, torch.float32)
    tokens = 12 + 4 + 12 + 3 * TINY.special
    assert scale.tokens == tokens
    assert scale.raw == 4 * 2 * TINY.width * 4
    feature = torch.rand(1, 2, 12 + TINY.special, 2 * TINY.width)
    pieces = [model.projected(slot, feature, (4, 3)) for slot in range(4)]
    held = sum(x.numel() * 4 for pair in pieces for x in pair)
    assert held == 2 * 12 * scale.projected
    plan = make_plan(model, sizes, MUCH, torch.float32, Wishes(chunk=1, features="projected"))
    assert bytes_of(plan)["features for the heads"] == 28 * scale.projected
    assert (plan.chunks, plan.near) == (3, 3)


@pytest.mark.parametrize(
    ("backend", "most"),
    [
        ("softmax", None),
        *(("softmax", n) for n in (1, 2, 3)),
        ("linear", None),
        ("ttt_shortconv", None),
    ],
)
def test_states_are_planned_as_large_as_they_become(backend: str, most: int | None) -> None:
    """Whatever bounds them. Of several sizes a survey keeps no more than the largest views."""
    bound = {} if most is None else {"max_views": most}
    model = VGGT3.build(TINY, backend, **bound).eval()

    def real(images: list[torch.Tensor]) -> int:
        with torch.no_grad():
            return sum(state.nbytes for state in model.read(Views.from_list(images)).states)

    for count in (1, 2, most or 3, 100 * (most or 1)):
        images = [torch.rand(3, 28, 42) for _ in range(count)]
        planned = measure(model, [(28, 42)] * count, torch.float32).states
        assert planned == real(images)
        mixed = measure(model, [(28, 42)] * count + [(14, 14)], torch.float32).states
        assert real([*images, torch.rand(3, 14, 14)]) <= mixed
        assert not bound or count < most or mixed == planned  # type: ignore[operator]
    few, many = (measure(model, [(28, 42)] * n, torch.float32) for n in (3, 300))
    assert not bound or few == replace(many, views=few.views, tokens=few.tokens)


def test_a_split_puts_as_much_on_the_device_as_it_holds(model: VGGT3) -> None:
    whole = plan_of(model, MUCH, 0, chunk=8, projections="again", features="projected")
    every = bytes_of(whole)["features for the heads"]
    split = plan_of(
        model, whole.needed - every // 2, MUCH, chunk=8, projections="again", features="raw-host"
    )
    assert 0 < split.near < split.chunks == 500
    one = dict(split.host_parts)["features for the heads"] // (split.chunks - split.near)
    assert split.needed <= split.budget < split.needed + SLACK * one + 2


def test_wishes_are_kept_and_named_when_they_do_not_fit(model: VGGT3) -> None:
    assert plan_of(model, MUCH, chunk=7).chunk == 7
    assert plan_of(model, MUCH, projections="again").keep is False
    assert plan_of(model, MUCH, features="replay").features == "replay"
    tight = plan_of(model, MUCH, features="replay", projections="again", chunk=8).needed
    with pytest.raises(checks.PlanError, match="without --features raw it would fit"):
        plan_of(model, tight, features="raw")
    with pytest.raises(checks.PlanError, match="without --chunk 4000 it would fit"):
        plan_of(model, tight, chunk=4_000)


def test_more_host_memory_is_asked_for_where_it_would_do() -> None:
    softmax = VGGT3.build(TINY, "softmax").eval()
    whole = plan_of(softmax, MUCH, 0, projections="again", features="projected", chunk=8)
    budget = whole.needed - bytes_of(whole)["features for the heads"] // 2
    with pytest.raises(checks.PlanError) as caught:
        plan_of(softmax, budget, parse_bytes("1M"))
    told = str(caught.value)
    wanted = told.partition("with --host-memory ")[2].removesuffix(" it would fit")
    assert plan_of(softmax, budget, int(parse_bytes(wanted) * 1.1)).host_parts


def test_only_what_helps_is_advised(model: VGGT3) -> None:
    def refused(model: VGGT3, budget: int, dtype: torch.dtype = torch.float32) -> str:
        with pytest.raises(checks.PlanError) as caught:
            make_plan(model, SIZES, budget, dtype)
        return str(caught.value)

    def told(model: VGGT3, budget: int, dtype: torch.dtype = torch.float32) -> str:
        return refused(model, budget, dtype).rpartition("; ")[2]

    one = make_plan(model, SIZES[:1], MUCH, torch.float32)
    some, none = int(1.5 * one.needed), one.needed // 100
    assert told(model, some) == "give a smaller --long-side, fewer views, or more --memory"
    narrow, wide = (
        parse_bytes(text.partition("got ")[2].partition(" at least")[0].replace(" ", ""))
        for text in (refused(model, some, torch.bfloat16), refused(model, some))
    )
    assert "fewer views, --precision bf16, or more" in told(model, (narrow + wide) // 2)
    assert told(model, none) == told(model, none, torch.bfloat16) == "give more --memory"
    softmax = VGGT3.build(TINY, "softmax").eval()
    assert "a backend with a bounded state, or more --memory" in told(softmax, some)


def test_replay_is_refused_where_the_memory_grows() -> None:
    softmax = VGGT3.build(TINY, "softmax").eval()
    with pytest.raises(checks.UsageError, match=r"--features must be raw or projected with softm"):
        plan_of(softmax, MUCH, features="replay")
    fits = plan_of(softmax, MUCH)
    with pytest.raises(checks.PlanError):  # and is never chosen
        plan_of(softmax, fits.needed // 3, 0)
    bounded = VGGT3.build(TINY, "softmax", max_views=2).eval()
    assert plan_of(bounded, MUCH, features="replay").features == "replay"


def test_the_plan_is_shown_whole(model: VGGT3) -> None:
    with_host = plan_of(model, MUCH, MUCH, features="raw-host", tokens="host", chunk=8)
    tight = plan_of(model, with_host.needed // 2, MUCH, features="raw-host", tokens="host", chunk=8)
    rows = dict(tight.describe())
    assert rows["tokens"].endswith("in host memory")
    assert rows["features"] == f"raw, {500 - tight.near} of 500 chunks in host memory"
    assert {"host memory: tokens", "host memory: expected", "host memory: allowed"} <= set(rows)
    again = dict(plan_of(model, MUCH, features="replay").describe())
    assert again["features"] == "read again chunk by chunk"
    assert not any("host" in name for name in again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "hots"}, "did you mean 'host'"),
        ({"projections": "keeps"}, "--projections must be one of again, auto, keep"),
        ({"features": "raw_host"}, "did you mean 'raw-host'"),
        ({"host_memory": "much"}, "--host-memory must be a size such as 20G, got 'much'"),
    ],
)
def test_bad_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(checks.UsageError, match=message):
        RunOptions(**options)  # type: ignore[arg-type]
