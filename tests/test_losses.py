"""The losses: derivatives, hand-made values, and sums that add over ranks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vggt3 import losses
from vggt3.checks import UsageError
from vggt3.distributed import World
from vggt3.geometry.camera import encode_pose, look_at, normalise_to_first, pinhole
from vggt3.losses import LossWeights, Targets


def cameras(views: int = 3, batch: int = 2) -> tuple[Tensor, Tensor]:
    centre = torch.randn(batch, views, 3, dtype=torch.float64)
    target = torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64).expand_as(centre)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64).expand_as(centre)
    focal = torch.full((batch, views), 9.0, dtype=torch.float64)
    return normalise_to_first(look_at(centre, target, up)), pinhole(focal, focal, (6, 8))


@pytest.fixture
def target() -> Targets:
    pose, intrinsics = cameras()
    depth = 1 + torch.rand(2, 3, 6, 8, dtype=torch.float64)
    valid = torch.rand(2, 3, 6, 8) > 0.2
    return losses.normalised_targets(pose, intrinsics, depth, valid, 0.5)


def test_the_scene_is_normalised_to_mean_distance_one(target: Targets) -> None:
    distance = target.points.norm(dim=-1)
    for scene in range(2):
        assert distance[scene][target.valid[scene]].mean().item() == pytest.approx(1)
    again = cameras()[0]
    assert target.pose.shape == (2, 3, 9)
    assert (target.pose[..., 6] >= 0).all(), "quaternions have w ≥ 0"
    assert again.shape == (2, 3, 3, 4)


def test_scaling_a_scene_changes_nothing() -> None:
    pose, intrinsics = cameras()
    depth, valid = 1 + torch.rand(2, 3, 6, 8, dtype=torch.float64), torch.ones(2, 3, 6, 8) > 0
    one = losses.normalised_targets(pose, intrinsics, depth, valid, 0.5)
    larger = torch.cat([pose[..., :3], 7 * pose[..., 3:]], dim=-1)
    other = losses.normalised_targets(larger, intrinsics, 7 * depth, valid, 0.5)
    for name in ("pose", "depth", "points"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    torch.testing.assert_close(other.scale, 7 * one.scale)


def test_a_scene_of_sky_keeps_its_units() -> None:
    pose, intrinsics = cameras()
    depth, valid = torch.zeros(2, 3, 6, 8, dtype=torch.float64), torch.zeros(2, 3, 6, 8) > 0
    sky = losses.normalised_targets(pose, intrinsics, depth, valid, 0.5)
    assert sky.scale.tolist() == [1, 1]
    found = losses.dense_terms(
        torch.ones_like(depth),
        2 * torch.ones_like(depth),
        torch.zeros(2, 3, 6, 8, 3, dtype=torch.float64),
        2 * torch.ones_like(depth),
        sky,
        LossWeights(),
    )
    assert all(value.item() == 0 for value in found.values())


def test_pose_error_by_hand() -> None:
    truth = torch.zeros(1, 1, 9, dtype=torch.float64)
    guess = torch.tensor([[[3.0, 0, 0, 0, 0, 0, 4, 1, 1]]], dtype=torch.float64)
    assert losses.pose_error(guess, truth).item() == pytest.approx(3 / 3 + 4 / 4 + 0.5 * 1)
    stages = [guess, truth, guess]
    expected = 2.5 * (0.6**2 + 1)
    assert losses.staged_pose_error(stages, truth).item() == pytest.approx(expected)


def test_confidence_is_best_at_alpha_over_residual() -> None:
    residual = torch.tensor(0.05, dtype=torch.float64)
    best = 0.2 / 0.05
    around = [
        losses.confident_error(residual, torch.tensor(c, dtype=torch.float64))
        for c in (0.9 * best, best, 1.1 * best)
    ]
    assert around[1] < min(around[0], around[2])
    assert around[1].item() == pytest.approx(0.2 - 0.2 * math.log(best))


def test_the_worst_two_percent_of_each_view_are_dropped() -> None:
    residual = torch.stack([torch.arange(100.0), 1000 + torch.arange(100.0)]).reshape(2, 10, 10)
    everything = torch.ones(2, 10, 10) > 0
    kept = losses.without_worst(residual, everything)
    assert kept.sum((1, 2)).tolist() == [98, 98]
    assert not kept[0, 9, 8:].any()
    some = everything.clone()
    some[0, 5:] = False  # 50 left: one goes
    kept = losses.without_worst(residual, some)
    assert kept[0].sum().item() == 49 and not kept[0, 4, 9]
    assert not (kept & ~some).any()
    none = torch.zeros_like(everything)
    assert not losses.without_worst(residual, none).any()
    assert losses.without_worst(residual, some, 0.0) is some


def test_gradient_errors_of_a_slope() -> None:
    slope = torch.arange(8.0).expand(1, 8, 8)
    known = torch.ones(1, 8, 8) > 0
    pairs = losses.gradient_errors(slope, known, strides=(1, 2))
    assert [e.unique().tolist() for e, _ in pairs] == [[1], [0], [2], [0]]
    known[0, 3, 3] = False
    masks = [m for _, m in losses.gradient_errors(slope, known, strides=(1,))]
    assert [int((~m).sum()) for m in masks] == [2, 2]


def test_normals_of_planes() -> None:
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    flat = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    steep = torch.stack([x, y, x], dim=-1)
    known = torch.ones(4, 5) > 0
    same, mask = losses.normal_error(flat, flat, known)
    assert mask.shape == (3, 4) and same.abs().max() < 1e-3
    tilted, _ = losses.normal_error(steep, flat, known)
    torch.testing.assert_close(tilted, torch.full((3, 4), 1 - 0.5**0.5), rtol=1e-3, atol=1e-3)
    collapsed = torch.zeros_like(flat, requires_grad=True)
    losses.normal_error(collapsed, flat, known)[0].sum().backward()
    assert collapsed.grad is not None and collapsed.grad.isfinite().all()


def prediction() -> tuple[Tensor, ...]:
    shape = (2, 3, 6, 8)
    return tuple(
        t.double().requires_grad_()
        for t in (
            torch.rand(shape) + 0.5,
            torch.rand(shape) + 1,
            torch.randn(*shape, 3),
            torch.rand(shape) + 1,
        )
    )


def test_dense_gradients(target: Targets) -> None:
    def loss(*given: Tensor) -> Tensor:
        return losses.total(
            losses.dense_terms(*given, target, LossWeights(dropped=0.02)), LossWeights()
        )

    assert torch.autograd.gradcheck(loss, prediction())


def test_camera_gradients(target: Targets) -> None:
    stages = tuple(torch.randn(2, 3, 9, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def loss(*given: Tensor) -> Tensor:
        return losses.camera_term(given, target, LossWeights())

    assert torch.autograd.gradcheck(loss, stages)


def test_the_truth_costs_nothing_but_confidence(target: Targets) -> None:
    sure = torch.full_like(target.depth, math.e)
    found = losses.dense_terms(target.depth, sure, target.points, sure, target, LossWeights())
    assert found["depth"].item() == pytest.approx(-0.2)
    assert found["points"].item() == pytest.approx(-0.2)
    assert found["depth_gradient"].item() == 0
    assert found["normals"].item() < 1e-3
    assert losses.camera_term([target.pose], target, LossWeights()).item() == 0


class Counted(World):
    """A rank that is told what the others count."""

    def __init__(self, totals: list[Tensor]) -> None:
        super().__init__(0, 2)
        object.__setattr__(self, "totals", totals)

    def sum(self, tensor: Tensor) -> Tensor:
        totals: list[Tensor] = self.totals  # type: ignore[attr-defined]
        return totals.pop(0).to(tensor)


class Listening(World):
    """One process that writes down what it would have sent."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "heard", [])

    def sum(self, tensor: Tensor) -> Tensor:
        self.heard.append(tensor.detach())  # type: ignore[attr-defined]
        return tensor


def test_the_ranks_losses_add_up(target: Targets) -> None:
    """Shards of 2 + 1 + 0 views: the sum of the local losses is the loss of one process."""
    given, weights = prediction(), LossWeights()
    whole_world = Listening()
    whole = losses.dense_terms(*given, target, weights, whole_world)
    counts: list[Tensor] = whole_world.heard  # type: ignore[attr-defined]
    parts = []
    for start, stop in ((0, 2), (2, 3), (3, 3)):
        share = Targets(
            target.pose[:, start:stop],
            target.depth[:, start:stop],
            target.points[:, start:stop],
            target.valid[:, start:stop],
            target.scale,
        )
        local = [t[:, start:stop] for t in given]
        parts.append(losses.dense_terms(*local, share, weights, Counted(list(counts))))
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value)


def test_targets_agree_with_the_pose_encoding() -> None:
    pose, intrinsics = cameras()
    depth, valid = torch.ones(2, 3, 6, 8, dtype=torch.float64), torch.ones(2, 3, 6, 8) > 0
    found = losses.normalised_targets(pose, intrinsics, depth, valid, 0.5)
    expected = encode_pose(pose, intrinsics, (6, 8))
    torch.testing.assert_close(found.pose[..., 3:], expected[..., 3:])
    torch.testing.assert_close(found.pose[..., :3] * found.scale[:, None, None], expected[..., :3])


def test_a_patch_without_area_has_hardly_a_normal() -> None:
    """Of the true direction, with t of the true area: 1 − t/√(t² + 0.03²)."""
    target = torch.zeros(2, 2, 3)
    target[0, 1, 0] = target[1, 0, 1] = 1.0
    valid = torch.ones(2, 2, dtype=torch.bool)
    for share in (1.0, 0.03, 0.001):
        predicted = target * torch.tensor([share, 1.0, 1.0])
        error, _ = losses.normal_error(predicted, target, valid)
        wanted = 1 - share / (share**2 + 0.03**2) ** 0.5
        assert float(error) == pytest.approx(wanted, abs=1e-6), share


def test_a_patch_gone_astray_has_no_normal_to_learn_from() -> None:
    """Sides along one line, as bf16 makes them, of points far away: a finite, small gradient."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(9, 9, 3, generator=generator) + 1
    valid = torch.ones(9, 9, dtype=torch.bool)
    raw = (target.log1p() + 0.1 * torch.rand(9, 9, 3, generator=generator)).clone()
    sane, _ = losses.normal_error(raw.expm1(), target, valid)
    for size in (10.0, 20.0, 40.0, 80.0):  # e⁸⁰ squared is beyond fp32
        lost = raw.clone()
        lost[4, 4], lost[4, 5] = size, size
        lost[5, 4] = torch.tensor([size, size, 0.9 * size])
        lost.requires_grad_()
        error, known = losses.normal_error(lost.sign() * lost.abs().expm1(), target, valid)
        assert not known[4, 4] and not known[4, 3] and int(known.sum()) == 64 - 7
        assert torch.equal(error[known], sane[known])
        mean = losses.share_of_mean([(error, known)])
        (gradient,) = torch.autograd.grad(mean, lost)
        assert bool(gradient.isfinite().all()) and float(gradient.norm()) < 10, size


def test_confidence_costs_where_there_is_nothing() -> None:
    """By its logarithm, alike for depth and points, and nowhere else."""
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(1, 2, 6, 8, generator=generator) > 0.4
    depth, points = torch.ones(1, 2, 6, 8), torch.ones(1, 2, 6, 8, 3)
    target = losses.Targets(
        pose=torch.zeros(1, 2, 9), depth=depth, points=points, valid=valid, scale=torch.ones(1)
    )
    sure = [(torch.rand(1, 2, 6, 8, generator=generator) + 1).requires_grad_() for _ in range(2)]
    weights = LossWeights(sky=0.3)
    terms = losses.dense_terms(depth, sure[0], points, sure[1], target, weights)
    wanted = sum(s[~valid].log().sum() for s in sure) / valid.numel()
    torch.testing.assert_close(terms["sky"], wanted)
    for gradient, s in zip(torch.autograd.grad(terms["sky"], sure), sure, strict=True):
        torch.testing.assert_close(gradient, torch.where(valid, 0, 1 / s) / valid.numel())
    rest = {name: term for name, term in terms.items() if name != "sky"}
    torch.testing.assert_close(
        losses.total(terms, weights), losses.total(rest, weights) + 0.3 * terms["sky"]
    )
    assert "sky" not in losses.dense_terms(depth, sure[0], points, sure[1], target, LossWeights())


def test_a_residual_beyond_the_tail_counts_by_its_logarithm() -> None:
    x = torch.tensor([-40.0, -1.0, 0.5, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    far = x.sign() * x.abs().expm1()
    assert losses.tailed(far, 0.0) is far
    found = losses.tailed(far, 10.0)
    near = far.abs() <= 10
    assert torch.equal(found[near], far[near])
    beyond = far.sign() * 10 * (1 + (far.abs() / 10).log())
    torch.testing.assert_close(found[~near], beyond[~near])
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient[~near], torch.full((2,), 10.0, dtype=torch.float64))
    torch.testing.assert_close(gradient[near], x[near].abs().exp())
    for tail in (-1, math.inf):
        with pytest.raises(UsageError, match=f"tail must be at least 0, and finite, got {tail}"):
            LossWeights(tail=tail)
