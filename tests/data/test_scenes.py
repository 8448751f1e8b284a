"""Drawing: repeatable, never twice the same, cameras in free space, statistics in range."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vggt3.checks import UsageError
from vggt3.data.procedural import scene
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.overlap import pair_statistics, pairwise_overlap
from vggt3.data.procedural.render import render_depth
from vggt3.data.procedural.scene import SceneParameters, collate
from vggt3.data.procedural.scenes import ProceduralScenes, draw_scene

SMALL = ProceduralConfig(views=4, size=(28, 28))


def equal(a: SceneParameters, b: SceneParameters) -> bool:
    return all(torch.equal(x, b.tensors()[name]) for name, x in a.tensors().items())


def test_the_stream_is_pinned() -> None:
    draw = Draw(0, 1)
    wanted = [0.6020906151829954, 0.4018999566079954, 0.7203897436972]
    assert [draw.unit() for _ in range(3)] == wanted


def test_distributions() -> None:
    draw = Draw(3)
    many = np.array([draw.unit() for _ in range(20000)])
    assert many.min() >= 0 and many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01 and abs(many.std() - 12**-0.5) < 0.01
    normal = np.array([draw.normal(2.0) for _ in range(20000)])
    assert abs(normal.mean()) < 0.06 and abs(normal.std() - 2) < 0.05
    whole = [draw.integer(2, 4) for _ in range(3000)]
    assert sorted(set(whole)) == [2, 3, 4] and min(whole.count(n) for n in (2, 3, 4)) > 900
    picks = [draw.weighted((1, 0, 3)) for _ in range(4000)]
    assert picks.count(1) == 0 and abs(picks.count(2) / 4000 - 0.75) < 0.03
    assert sorted(draw.shuffled(range(10))) == list(range(10))


def test_one_index_one_scene() -> None:
    assert equal(draw_scene(SMALL, 0, 7), draw_scene(SMALL, 0, 7))
    scenes = [draw_scene(SMALL, seed, n) for seed in (0, 1) for n in range(5)]
    for n, first in enumerate(scenes):
        assert not any(equal(first, other) for other in scenes[n + 1 :])


def test_workers_never_repeat_each_other() -> None:
    data = ProceduralScenes(SMALL, seed=3, count=8, first=100)
    loader = DataLoader(data, batch_size=2, num_workers=2, collate_fn=collate)
    batches = list(loader)
    seeds = torch.cat([batch.seed for batch in batches])
    assert len(set(seeds.tolist())) == 8
    assert torch.equal(seeds, torch.cat([draw_scene(SMALL, 3, 100 + n).seed for n in range(8)]))


@pytest.mark.parametrize("outdoors", [0.0, 1.0])
def test_cameras_stand_in_free_space(outdoors: float) -> None:
    config = ProceduralConfig(views=8, size=(28, 28), outdoors=outdoors, abstract=0.2)
    near, count = 0, 0
    for index in range(12):
        scenes = draw_scene(config, 9, index)
        depth = render_depth(scenes)
        near += int((depth[depth > 0] < 0.12).sum())
        count += depth.numel()
        local = torch.einsum("kij,vj->vki", scenes.local_from_world[0, :, :, :3], centres(scenes))
        local = local + scenes.local_from_world[0, None, :, :, 3]
        shell = scenes.slots[0]
        assert (local[:, :shell].abs().amax(-1) < 1).any(-1).all()
        boxes = local[:, shell : shell + scenes.slots[1]].abs().amax(-1)
        assert (boxes > 1).all()
    assert near / count < 0.01


def centres(scenes: SceneParameters) -> torch.Tensor:
    pose = scenes.camera_from_world[0]
    return -(pose[:, :, :3].transpose(-1, -2) @ pose[:, :, 3:]).squeeze(-1)


def test_cameras_keep_the_range_of_fields_of_view() -> None:
    config = ProceduralConfig(views=6, size=(28, 56), fov_deg=(45, 80), one_camera=0.5)
    for index in range(10):
        k = draw_scene(config, 1, index).intrinsics[0]
        fov = 2 * torch.atan(28 / k[:, 0, 0]) * 180 / math.pi
        assert (fov > 44.99).all() and (fov < 80.01).all()
        assert (k[:, 0, 2] == 28).all() and (k[:, 1, 2] == 14).all()
        assert torch.equal(k[:, 0, 0], k[:, 1, 1])


def test_near_copies_are_near_copies() -> None:
    config = ProceduralConfig(views=10, size=(28, 28), duplicates=0.9)
    scenes = draw_scene(config, 4, 0)
    place = centres(scenes)
    distance = (place[:, None] - place[None]).norm(dim=-1)
    assert float(distance.max()) < 0.5


def test_overlap_of_known_pairs() -> None:
    config = ProceduralConfig(views=3, size=(56, 56), outdoors=0.0, one_camera=1.0)
    scenes = draw_scene(config, 2, 0)
    pose = scenes.camera_from_world.clone()
    pose[:, 1] = pose[:, 0]
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0])) @ pose[:, 0]
    pose[:, 2] = turned
    depth = render_depth(replace(scenes, camera_from_world=pose))
    overlap = pairwise_overlap(depth, scenes.intrinsics, pose)
    assert overlap.shape == (1, 3, 3)
    assert float(overlap[0, 0, 1]) == float(overlap[0, 0, 0]) == 1
    assert float(overlap[0, 0, 2]) == float(overlap[0, 2, 0]) == 0
    statistics = pair_statistics(depth, scenes.intrinsics, pose)
    assert math.isclose(float(statistics.rotation[0]), math.pi, rel_tol=1e-3)


def test_overlap_can_be_asked_for() -> None:
    config = ProceduralConfig(views=6, size=(56, 56), overlap=(0.3, 0.6))
    found = []
    for index in range(6):
        scenes = draw_scene(config, 0, index)
        depth = render_depth(scenes)
        statistics = pair_statistics(depth, scenes.intrinsics, scenes.camera_from_world)
        found.append(float(statistics.overlap[0]))
    assert sum(0.25 <= x <= 0.65 for x in found) >= 5


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"views": 0}, "--data.views must be at least 1, got 0"),
        ({"outdoors": 1.5}, "--data.outdoors must be between 0 and 1"),
        ({"fov_deg": (80, 45)}, "--data.fov_deg must be ordered"),
        ({"fov_deg": (1, 45)}, "--data.fov_deg must lie between"),
        ({"size": (7, 28)}, "--data.size must be at least 14"),
    ],
)
def test_impossible_knobs_are_said(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProceduralConfig(**knobs)  # type: ignore[arg-type]


def test_scenes_of_two_sizes_do_not_collate() -> None:
    other = ProceduralConfig(views=4, size=(28, 42))
    with pytest.raises(UsageError, match="size of a batch must be the same"):
        collate([draw_scene(SMALL, 0, 0), draw_scene(other, 0, 0)])


def test_a_parcel_holds_every_tensor() -> None:
    scenes = collate([draw_scene(SMALL, 0, n) for n in range(3)])
    sent = [value for name, value in scenes.tensors().items() if name != "counts"]
    got = scene._sent([*sent, torch.zeros(0)], torch.device("cpu"))
    for mine, theirs in zip(got, sent, strict=False):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    assert len(got) == len(sent) + 1 and len({t.untyped_storage().data_ptr() for t in got}) == 1
    away = scenes.to("meta")
    assert away.counts is scenes.counts and away.seed.device.type == "meta"
    assert away.materials.shape == scenes.materials.shape and away.size == scenes.size
