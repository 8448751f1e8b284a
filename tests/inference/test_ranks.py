"""A scene that processes share, unevenly, is the scene that one process computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.inference.test_engine import Kept, loud, photos, relative
from tests.inference.test_modes import MODES, Failing
from tests.training.processes import together
from vggt3 import checks
from vggt3.distributed import ALONE, World
from vggt3.inference.engine import Engine
from vggt3.inference.measure import measure
from vggt3.inference.options import RunOptions, Wishes, parse_bytes
from vggt3.inference.plan import Plan, make_plan, make_plans
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

CONFIG = replace(TINY, layers=4, feature_layers=(0, 1, 2, 3), camera_iterations=2)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("softmax", {}),
    "key views": ("softmax", {"max_views": 2}),
    "linear": ("linear", {}),
    "sweeps": ("ttt_shortconv", {"sweeps": 3}),
    "schedule": ("ttt_mlp", {"schedule": "0-1:softmax,2-3:ttt_mlp"}),
}


def engine_of(case: str, world: World, chunk: int = 2, precision: str = "fp32") -> Engine:
    backend, options = CASES[case]
    torch.manual_seed(0)
    model = loud(VGGT3.build(CONFIG, backend, **options))
    for token in (model.aggregator.camera_token, model.aggregator.register_token):
        torch.nn.init.normal_(token)  # so that whose tokens a view has can be seen
    return Engine(model, RunOptions("cpu", precision, chunk=chunk), world)


def start() -> tuple[World, World | None]:
    """All processes, and the first two of them by themselves."""
    dist.init_process_group("gloo")
    pair = dist.new_group([0, 1])
    rank = dist.get_rank()
    return World.current(), World(rank, 2, pair) if rank < 2 else None


def check_share(case: str, world: World, shares: list[int], **changes: Any) -> None:
    views = Views.from_list(photos())
    first = sum(shares[: world.rank])
    mine = views.shard(first, first + shares[world.rank])
    expected, found = Kept(), Kept()
    engine_of(case, ALONE).run(views, expected)
    engine = engine_of(case, world)
    plan = replace(engine.plan(mine), **changes) if changes else None
    engine.run(mine, found, plan=plan)
    assert sorted(found.views) == sorted(mine.ids)
    assert found.found.sizes == expected.found.sizes
    pairs: list[tuple[Tensor, Tensor]] = [
        (found.found.camera_from_world, expected.found.camera_from_world),
        (found.found.intrinsics, expected.found.intrinsics),
    ]
    for i, view in found.views.items():
        pairs += [(view.depth, expected.views[i].depth), (view.points, expected.views[i].points)]
    for own, whole in pairs:
        assert relative(own, whole) < 1e-5, f"{case} on rank {world.rank} {shares} {changes}"


def check_scenes() -> None:
    world, pair = start()
    for case in CASES:
        check_share(case, world, [3, 2, 0])
        if pair and case in ("softmax", "sweeps"):
            check_share(case, pair, [1, 4])
    check_share("sweeps", world, [0, 1, 4])
    check_bf16(world)
    for name in ("projected", "host-tokens-again", "replay"):
        check_share("sweeps", world, [2, 0, 3], **MODES[name])
    check_memory(world)
    dist.destroy_process_group()


def check_bf16(world: World) -> None:
    views = Views.from_list(photos())
    mine = views.shard(*world.share(views.total))
    expected, found = Kept(), Kept()
    engine_of("softmax", ALONE, precision="bf16").run(views, expected)
    engine_of("softmax", world, precision="bf16").run(mine, found)
    for i in mine.ids:
        assert relative(found.views[i].depth, expected.views[i].depth) < 5e-3


def check_memory(world: World) -> None:
    """One rank runs out of memory: all do it again at half the chunk."""
    views = Views.from_list([*photos(), *photos()])
    mine = views.shard(*world.share(views.total))
    expected, found = Kept(), Kept()
    engine_of("sweeps", ALONE, chunk=1).run(views, expected)
    for at in ("heads", "layers", "cameras"):
        engine = engine_of("sweeps", world, chunk=2)
        if world.rank == 1 and at == "heads":
            engine.model.dense = Failing(engine.model.dense, 1)  # type: ignore[method-assign]
        if world.rank == 1 and at == "layers":
            fail_once(engine.model.aggregator.frame_blocks[2])
        if world.rank == 1 and at == "cameras":
            fail_once(engine.model.camera_head)
        found = Kept()
        outcome = engine.run(mine, found)
        assert outcome.notes == ("out of memory with 2 views at a time; done again with 1",), at
        assert outcome.plan.chunk == 1
        for i in mine.ids:
            assert relative(found.views[i].depth, expected.views[i].depth) < 1e-5
    engine = engine_of("sweeps", world, chunk=1)
    if world.rank == 1:
        engine.model.dense = Failing(engine.model.dense, 0)  # type: ignore[method-assign]
    with pytest.raises(checks.PlanError, match="with one view at a time"):
        engine.run(mine, Kept())
    assert world.exchange(world.rank) == [0, 1, 2]  # and none has gone on by itself


def fail_once(module: torch.nn.Module) -> None:
    """Let ``module`` run out of memory when it is called first."""

    def out(*_: object) -> None:
        handle.remove()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 TiB.")

    handle = module.register_forward_pre_hook(out)


def test_every_backend_and_mode_over_two_and_three_processes() -> None:
    together(3, check_scenes)


def check_errors() -> None:
    world, _ = start()

    def fails() -> int:
        checks.require(world.rank != 1, "a photo", "be readable", "mould", error=checks.DataError)
        return world.rank

    told = "a photo must be readable, got mould"
    told += "" if world.rank == 1 else r" \(on rank 1\)"
    with pytest.raises(checks.DataError, match=f"^{told}$"):
        world.agreed(fails)
    assert world.agreed(lambda: 2 * world.rank) == [0, 2, 4]
    engine = engine_of("linear", world)
    engine.options = replace(engine.options, memory="64K" if world.rank == 2 else "4G")
    with pytest.raises(checks.PlanError, match=r"for 5 views in 3 processes must fit 64.0 KiB"):
        engine.plan_sizes([(28, 28)] * 5)  # the smallest budget counts for all
    dist.destroy_process_group()


def test_what_is_wrong_on_one_is_wrong_on_all() -> None:
    together(3, check_errors)


def plans(shares: list[int], budget: str, host: str | None = None, **wishes: Any) -> list[Plan]:
    model = VGGT3.build(TINY, "ttt_shortconv").eval()
    sizes = [[(224, 224)] * views for views in shares]
    given = parse_bytes(budget), torch.float32, Wishes(**wishes)
    return make_plans(model, sizes, *given, None if host is None else parse_bytes(host))


def test_plans_of_ranks_are_one_way_and_hold_the_largest_share() -> None:
    model = VGGT3.build(TINY, "ttt_shortconv").eval()
    alone = make_plan(model, [(224, 224)] * 300, 2**40, torch.float32)
    found = plans([300, 299, 0], "1T")
    assert [(plan.views, plan.own, plan.processes) for plan in found] == [
        *((599, 300, 3), (599, 299, 3), (599, 0, 3))
    ]
    assert found[0].parts == alone.parts  # the state of ttt is the same for all views
    assert dict(found[0].describe())["views"] == ("599 in 3 processes, 300 in the neediest")
    tight = plans([300, 100, 0], str(int(alone.needed * 0.6)))
    ways = {(plan.chunk, plan.keep, plan.features, plan.host_tokens) for plan in tight}
    assert len(ways) == 1 and ways != {(alone.chunk, alone.keep, alone.features, False)}
    assert all(plan.fits for plan in tight)


def test_keys_of_other_ranks_are_planned_for() -> None:
    model = VGGT3.build(TINY, "softmax").eval()
    sizes = [(56, 56)] * 10
    scale = measure(model, sizes, torch.float32)
    (alone,), pair = (
        make_plans(model, shares, 2**36, torch.float32) for shares in ([sizes], [sizes, sizes])
    )
    assert scale.gathered == scale.states // TINY.layers
    assert dict(pair[0].parts)["scene memory"] == 2 * dict(alone.parts)["scene memory"]
    assert dict(pair[0].parts)["keys and values on their way"] == 2 * scale.gathered
    assert "keys and values on their way" not in dict(alone.parts)
