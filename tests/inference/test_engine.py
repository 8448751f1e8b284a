"""The engine gives what forward gives, whatever the chunk; the plan keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vggt3 import checks
from vggt3.geometry.camera import decode_pose
from vggt3.geometry.projection import project, unproject
from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions, parse_bytes
from vggt3.inference.plan import make_plan
from vggt3.model.blocks import LayerScale
from vggt3.model.choice import ModelChoice
from vggt3.model.config import TINY
from vggt3.model.opening import open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Cameras, DenseView, Views

BACKENDS = ["softmax", "linear", "ttt_mlp", "ttt_shortconv"]
SIZES = [(28, 42), (42, 28), (28, 42), (28, 28), (42, 28)]


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.views: dict[int, DenseView] = {}

    def cameras(self, cameras: Cameras) -> None:
        self.found = cameras

    def add(self, view: DenseView) -> None:
        self.views[view.index] = view


def loud(model: VGGT3) -> VGGT3:
    """LayerScale from U(0.3, 1): the near-zero start would hide every error."""
    for module in model.modules():
        if isinstance(module, LayerScale):
            torch.nn.init.uniform_(module.gamma, 0.3, 1.0)
    return model.eval()


def photos() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in SIZES]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("points_from", ["depth", "head"])
def test_engine_equals_forward(backend: str, points_from: str) -> None:
    model = loud(VGGT3.build(TINY, backend))
    views = Views.from_list(photos())
    with torch.no_grad():
        expected = model(views)
    for chunk in (1, 2, 64):
        kept = Kept()
        Engine(model, RunOptions("cpu", chunk=chunk, points_from=points_from)).run(views, kept)
        for group, maps in zip(views.groups, expected.dense, strict=True):
            for n, index in enumerate(group.ids):
                found = kept.views[index]
                assert relative(found.depth, maps.depth[0, n]) < 1e-5
                camera, intrinsics = decode_pose(expected.pose[0, index], group.size)
                assert relative(kept.found.camera_from_world[index], camera) < 1e-5
                points, confidence = maps.points[0, n], maps.points_confidence[0, n]
                if points_from == "depth":
                    points = unproject(maps.depth[0, n], intrinsics, camera, 0.5)
                    confidence = maps.depth_confidence[0, n]
                assert relative(found.points, points) < 1e-5
                assert relative(found.points_confidence, confidence) < 1e-5


def test_cameras_count_pixels_from_the_corner_whatever_the_heads_do() -> None:
    """Points project to the centres of their pixels, also with heads of whole pixels."""
    model = loud(VGGT3.build(replace(TINY, pixel_offset=0.0), "ttt_shortconv"))
    kept = Kept()
    Engine(model, RunOptions("cpu")).run(Views.from_list(photos()[:1]), kept)
    pixels, _ = project(
        kept.views[0].points.double(),
        kept.found.intrinsics[0].double(),
        kept.found.camera_from_world[0].double(),
    )
    height, width = SIZES[0]
    assert torch.allclose(pixels[0, :, 0], torch.arange(width).double() + 0.5, atol=1e-3)
    assert torch.allclose(pixels[:, 0, 1], torch.arange(height).double() + 0.5, atol=1e-3)


@pytest.mark.parametrize("attention", ["softmax", "ttt_shortconv"])
def test_the_weights_that_ship_read_alike_in_chunks(attention: str) -> None:
    """fp32 to 1e-5, bf16 to a step of its numbers."""
    model = open_model(ModelChoice(attention=attention)).model
    generator = torch.Generator().manual_seed(3)
    views = Views.from_tensor(torch.rand(4, 3, 70, 84, generator=generator))
    with torch.no_grad():
        exact = model(views).dense[0].depth[0]
    for precision, allowed in (("fp32", 1e-5), ("bf16", 4e-3)):
        kept = Kept()
        Engine(model, RunOptions("cpu", precision, chunk=3)).run(views, kept)
        found = torch.stack([kept.views[n].depth for n in range(4)])
        assert relative(found, exact) <= allowed


def test_other_views_may_come_in_any_order() -> None:
    model = loud(VGGT3.build(TINY, "ttt_shortconv"))
    images = photos()
    order = [0, 3, 1, 4, 2]
    first, second = Kept(), Kept()
    engine = Engine(model, RunOptions("cpu"))
    engine.run(Views.from_list(images), first)
    engine.run(Views.from_list([images[i] for i in order]), second)
    for place, index in enumerate(order):
        assert relative(second.views[place].depth, first.views[index].depth) < 1e-5
        found, expected = second.found.camera_from_world, first.found.camera_from_world
        assert relative(found[place], expected[index]) < 1e-5


def test_bits_repeat() -> None:
    model = loud(VGGT3.build(TINY, "ttt_shortconv"))
    runs = [Kept(), Kept()]
    for kept in runs:
        Engine(model, RunOptions("cpu", chunk=2)).run(Views.from_list(photos()), kept)
    for index in range(len(SIZES)):
        assert torch.equal(runs[0].views[index].points, runs[1].views[index].points)


def test_plan_shrinks_with_the_budget_and_says_what_is_missing() -> None:
    model = VGGT3.build(TINY, "ttt_shortconv").eval()
    sizes = [(224, 224)] * 200
    wide = make_plan(model, sizes, parse_bytes("64G"), torch.float32)
    assert (wide.chunk, wide.keep) == (8, True)
    tight = make_plan(model, sizes, int(wide.needed * 0.6), torch.float32)
    assert tight.needed <= wide.needed * 0.6
    assert (tight.chunk, tight.keep) != (8, True)
    with pytest.raises(checks.PlanError, match=r"200 views must fit 1.0 MiB, got .* at least"):
        make_plan(model, sizes, parse_bytes("1M"), torch.float32)


def test_plan_knows_that_softmax_remembers_everything() -> None:
    def remembered(backend: str, views: int) -> int:
        model = VGGT3.build(TINY, backend).eval()
        plan = make_plan(model, [(56, 56)] * views, 2**36, torch.float32)
        return dict(plan.parts)["scene memory"]

    tokens = 10 * (16 + TINY.special)
    assert remembered("softmax", 10) == TINY.layers * 2 * tokens * TINY.width * 4
    assert remembered("softmax", 20) == 2 * remembered("softmax", 10)
    assert remembered("ttt_shortconv", 20) == remembered("ttt_shortconv", 10)


def test_one_view_and_large_chunk() -> None:
    kept = Kept()
    model = VGGT3.build(TINY, "ttt_shortconv")
    outcome = Engine(model, RunOptions("cpu", chunk=1000)).run(Views.from_list(photos()[:1]), kept)
    assert list(kept.views) == [0]
    assert set(outcome.seconds) == {"layers", "cameras", "heads"}
    assert outcome.peak_bytes > 0


@pytest.mark.parametrize(
    ("text", "expected"), [("20G", 20 * 2**30), ("1.5 GiB", 3 * 2**29), ("64", 64), ("8mb", 2**23)]
)
def test_parse_bytes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "lots"}, "--memory must be a size such as 20G, got 'lots'"),
        ({"precision": "bf1"}, "--precision must be one of auto, bf16, fp32, got 'bf1'.*bf16"),
        ({"chunk": 0}, "--chunk must be at least 1, got 0"),
        ({"points_from": "heads"}, "did you mean 'head'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(checks.UsageError, match=message):
        replace(RunOptions(), **options)  # type: ignore[arg-type]


def test_memory_may_be_a_number_of_bytes() -> None:
    options = RunOptions("cpu", memory=3 * 2**30)
    assert options.resolve_memory(torch.device("cpu")) == parse_bytes("3G")
    for wrong in (-1, True):
        with pytest.raises(checks.UsageError, match="--memory must be a size such as 20G"):
            RunOptions("cpu", memory=wrong)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "sizes of views must be at least one .*, got none"),
        ([(28, 28), (28, 30)], r"multiples of 14, as the model sees it, got \(28, 30\)"),
        ([(0, 14)], "multiples of 14"),
        ([(14, 14, 14)], "multiples of 14"),
    ],
)
def test_sizes_that_no_view_has(sizes: list[tuple[int, int]], message: str) -> None:
    engine = Engine(VGGT3.build(TINY, "linear"), RunOptions("cpu"))
    with pytest.raises(checks.UsageError, match=message):
        engine.plan_sizes(sizes)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cpu0"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(checks.UsageError, match="--device must be"):
        RunOptions(device).resolve_device()
