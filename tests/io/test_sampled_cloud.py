"""The cloud: never empty, never too large, the same whatever the order of views."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vggt3.checks import UsageError
from vggt3.io import Cloud, SampledCloud
from vggt3.types import DenseView

IMAGE = torch.zeros(3, 28, 28, dtype=torch.uint8)
PER_VIEW = 28 * 28


def view(index: int, confidence: Tensor | None = None, points: Tensor | None = None) -> DenseView:
    generator = torch.Generator().manual_seed(index)
    depth = torch.rand(28, 28, generator=generator) + 1
    where = torch.randn(28, 28, 3, generator=generator) if points is None else points
    sure = 1 + torch.rand(28, 28, generator=generator) if confidence is None else confidence
    return DenseView(index, depth, sure, where, sure)


def collected(views: list[DenseView], **options: float) -> Cloud:
    cloud = SampledCloud(**options)  # type: ignore[arg-type]
    for one in views:
        cloud.add(one, IMAGE + one.index)
    return cloud.cloud()


def test_the_least_quarter_goes() -> None:
    views = [view(n) for n in range(3)]
    cloud = collected(views)
    sure = torch.cat([v.points_confidence.flatten() for v in views])
    rank = int(0.25 * (len(sure) - 1))
    kept = sure >= sure.sort().values[rank]
    points = torch.cat([v.points.reshape(-1, 3) for v in views])
    assert torch.equal(cloud.xyz, points[kept])
    colour = torch.arange(3).repeat_interleave(PER_VIEW)[kept]
    assert torch.equal(cloud.rgb, colour[:, None].expand(-1, 3).to(torch.uint8))


@pytest.mark.parametrize("percentile", [0.0, 25.0, 99.9999])
@pytest.mark.parametrize("value", [1.0, float("inf"), float("nan"), -3.0])
def test_it_is_never_empty(percentile: float, value: float) -> None:
    flat = torch.full((28, 28), value)
    cloud = collected([view(0, flat)], confidence_percentile=percentile)
    assert len(cloud) == PER_VIEW


def test_doubtful_confidences_are_ordered() -> None:
    sure = torch.linspace(1, 2, PER_VIEW).reshape(28, 28)
    sure[0, :10] = float("nan")
    sure[-1, -1] = float("inf")
    points = torch.arange(PER_VIEW).reshape(28, 28, 1).expand(28, 28, 3).float()
    kept = collected([view(0, sure, points)], confidence_percentile=50.0).xyz[:, 0]
    assert PER_VIEW / 2 <= len(kept) <= PER_VIEW / 2 + 1
    assert kept.min() > 10 and kept.max() == PER_VIEW - 1


def test_points_that_are_not_finite_are_dropped() -> None:
    points = torch.randn(28, 28, 3, generator=torch.Generator().manual_seed(0))
    points[0] = float("nan")
    points[1, :, 2] = float("inf")
    cloud = collected([view(0, points=points)], confidence_percentile=0.0)
    assert len(cloud) == PER_VIEW - 2 * 28 and cloud.xyz.isfinite().all()
    nothing = collected([view(0, points=torch.full((28, 28, 3), float("nan")))])
    assert len(nothing) == 0 and nothing.xyz.shape == (0, 3)


@pytest.mark.parametrize("max_points", [1, 100, 2000, 5000])
def test_no_more_than_asked_for_in_any_order(max_points: int) -> None:
    views = [view(n) for n in range(12)]
    forwards = collected(views, max_points=max_points)
    backwards = collected(views[::-1], max_points=max_points)
    assert len(forwards) == max_points
    assert torch.equal(forwards.xyz, backwards.xyz) and torch.equal(forwards.rgb, backwards.rgb)
    other = collected(views, max_points=max_points, seed=1)
    assert not torch.equal(forwards.xyz, other.xyz)


def test_the_sample_is_fair_over_views() -> None:
    cloud = collected([view(n) for n in range(10)], max_points=4000)
    counts = torch.bincount(cloud.rgb[:, 0].long(), minlength=10)
    assert (counts - 400).abs().max() < 80


def test_memory_is_bounded() -> None:
    cloud = SampledCloud(max_points=300, confidence_percentile=99.0)
    for number in range(40):
        cloud.add(view(number), IMAGE)
        assert cloud._held <= 2.5 * 4 * 300 + PER_VIEW
    assert 0 < len(cloud.cloud()) <= 300


def test_asking_twice_gives_the_same() -> None:
    cloud = SampledCloud(max_points=200)
    cloud.add(view(0), IMAGE)
    assert torch.equal(cloud.cloud().xyz, cloud.cloud().xyz)
    assert len(SampledCloud().cloud()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_points": 0}, "--max-points must be at least 1, got 0"),
        ({"confidence_percentile": 100.0}, "--confidence-percentile must be at least 0 and below"),
        ({"confidence_percentile": float("nan")}, "--confidence-percentile must be"),
        ({"seed": -1}, "--points-seed must be at least 0"),
    ],
)
def test_wrong_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SampledCloud(**options)  # type: ignore[arg-type]


def test_an_image_of_another_size() -> None:
    with pytest.raises(UsageError, match=r"image must be \[3, 28, 28\]"):
        SampledCloud().add(view(0), IMAGE[:, :14])


def test_pixels_known_beforehand_change_nothing_but_the_time() -> None:
    views = [(n, torch.rand(20, 30)) for n in range(30)]
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)

    def sampled(pixels: int | None, finite: bool = True) -> Cloud:
        cloud = SampledCloud(300, pixels=pixels)
        for n, depth in views:
            points = depth[..., None].expand(-1, -1, 3).clone()
            if not finite:
                points[torch.arange(20 * 30).view(20, 30) != 77] = torch.nan
            cloud.add(DenseView(n, depth, depth + 1, points, depth + 1), image)
        return cloud.cloud()

    told, untold = sampled(30 * 600), sampled(None)
    assert torch.equal(told.xyz, untold.xyz) and torch.equal(told.rgb, untold.rgb)
    assert len(sampled(30 * 600, finite=False)) >= 20  # one pixel a view: below the percentile
