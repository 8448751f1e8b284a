"""Depth against closed forms and against points known to lie on the surface."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.data.drawn import LEVEL, PLAIN, ROOM, scene_of
from vggt3.data.procedural import trace as tracing
from vggt3.data.procedural.build import Solid, yaw_rotation
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render, render_depth
from vggt3.data.procedural.scene import BALL, BOX, CYLINDER, SceneParameters
from vggt3.data.procedural.scenes import draw_scene
from vggt3.data.procedural.trace import camera_rays, frames_of, trace
from vggt3.geometry.camera import look_at, pinhole
from vggt3.geometry.projection import unproject

SIZE = (30, 44)


def camera(centre: list[float], target: list[float], focal: float = 30.0) -> tuple[Tensor, Tensor]:
    pose = look_at(torch.tensor([centre]), torch.tensor([target]), torch.tensor([[0.0, 0, 1]]))
    return pose, pinhole(torch.tensor([focal]), torch.tensor([focal]), SIZE)


def points_of(scenes: SceneParameters) -> tuple[Tensor, Tensor]:
    depth = render_depth(scenes)
    pose, intrinsics = scenes.camera_from_world.double(), scenes.intrinsics.double()
    return unproject(depth.double(), intrinsics, pose, 0.5), depth


def test_ball_against_its_closed_form() -> None:
    radius, distance = 0.7, 2.0
    ball = Solid((0.0, 1.0, 1.2), (radius,) * 3, yaw_rotation(0.4), PLAIN)
    pose, intrinsics = camera([0.0, 1.0 - distance, 1.2], [0.0, 1.0, 1.2])
    depth = render_depth(scene_of([[ROOM], [], [ball], []], pose, intrinsics, SIZE))[0, 0]
    v, u = torch.meshgrid(
        torch.arange(SIZE[0]).double() + 0.5, torch.arange(SIZE[1]).double() + 0.5, indexing="ij"
    )
    x, y = (u - SIZE[1] / 2) / 30, (v - SIZE[0] / 2) / 30
    a = x * x + y * y + 1
    inside = distance**2 - a * (distance**2 - radius**2)
    wanted = (distance - inside.clamp(min=0).sqrt()) / a
    hit = inside > 0
    assert 50 < int(hit.sum()) < hit.numel()
    torch.testing.assert_close(depth.double()[hit], wanted[hit], atol=2e-6, rtol=0)
    assert (depth[~hit] > distance).all()


def test_walls_against_their_closed_form() -> None:
    pose, intrinsics = camera([0.0, 0.0, 1.0], [0.0, 3.0, 1.0], focal=60.0)
    depth = render_depth(scene_of([[ROOM], [], [], []], pose, intrinsics, SIZE))[0, 0]
    assert (depth[10:20] - 3.0).abs().max() < 1e-6
    row = SIZE[0] - 0.5
    floor = 1.0 * 60 / (row - SIZE[0] / 2)
    assert abs(float(depth[-1, 22]) - min(3.0, floor)) < 1e-5


@pytest.mark.parametrize("kind", [BOX, BALL, CYLINDER])
def test_hits_lie_on_the_surface(kind: int) -> None:
    turned = yaw_rotation(0.7)
    solid = Solid((0.2, 0.9, 1.1), (0.5, 0.3, 0.6), turned, PLAIN)
    solids: list[list[Solid]] = [[ROOM], [], [], []]
    solids[kind].append(solid)
    pose, intrinsics = camera([-1.0, -1.5, 2.3], [0.2, 0.9, 1.0])
    points, depth = points_of(scene_of(solids, pose, intrinsics, SIZE))
    rotation = torch.tensor(turned).double()
    local = (points - torch.tensor(solid.centre).double()) @ rotation
    local = local / torch.tensor(solid.half).double()
    cube = local.abs().amax(-1)
    around = local[..., :2].square().sum(-1).sqrt()
    level = {
        BOX: cube,
        BALL: local.square().sum(-1).sqrt(),
        CYLINDER: torch.maximum(around, local[..., 2].abs()),
    }[kind]
    room = ((points - torch.tensor(ROOM.centre).double()) / torch.tensor(ROOM.half).double()).abs()
    on_solid, on_wall = (level - 1).abs() < 2e-6, (room.amax(-1) - 1).abs() < 2e-6
    assert (on_solid | on_wall).all()
    assert int(on_solid.sum()) > 30 and int(on_wall.sum()) > 30
    assert (level > 1 - 1e-5).all() and (depth > 0).all()


def test_rooms_join_where_they_overlap() -> None:
    alcove = Solid((4.9, 0.0, 1.0), (1.0, 0.8, 1.0), LEVEL, PLAIN)
    pose, intrinsics = camera([0.0, 0.0, 1.0], [4.0, 0.0, 1.0])
    depth = render_depth(scene_of([[ROOM, alcove], [], [], []], pose, intrinsics, SIZE))[0, 0]
    middle, corner = depth[14, 22], depth[2, 2]
    assert abs(float(middle) - 5.9) < 1e-5
    assert float(corner) < 4.0 + 1e-5
    # From inside the alcove the room behind the opening is seen.
    pose, intrinsics = camera([5.5, 0.0, 1.0], [0.0, 0.0, 1.0])
    depth = render_depth(scene_of([[ROOM, alcove], [], [], []], pose, intrinsics, SIZE))[0, 0]
    assert abs(float(depth[14, 22]) - 9.5) < 1e-5


@pytest.mark.parametrize("outdoors", [0.0, 1.0])
def test_skipping_what_cannot_be_met_changes_nothing(
    outdoors: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ProceduralConfig(views=3, size=SIZE, outdoors=outdoors, abstract=0)
    scenes = draw_scene(config, 3, 1)
    wanted = render_depth(scenes)
    whole = (slice(0, SIZE[0]), slice(0, SIZE[1]))
    monkeypatch.setattr(tracing, "_windows", lambda f, x, y: [whole] * f.origin.shape[1])
    torch.testing.assert_close(render_depth(scenes), wanted, atol=0, rtol=0)


@pytest.mark.parametrize("index", range(4))
def test_a_view_carried_into_another_returns_within_a_tenth_of_a_pixel(index: int) -> None:
    size = (28, 28)
    config = ProceduralConfig(views=4, size=size, outdoors=0.5, spread=(0.1, 0.4))
    scenes = draw_scene(config, 11, index)
    points, depth = points_of(scenes)
    seen = 0
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):
        known = depth[0, i].flatten() > 0
        target = points[0, i].reshape(-1, 3)[known]
        there = _pixels(scenes, j, target)
        inside = (there >= 0).all(-1) & (there < 28).all(-1) & (_depths(scenes, j, target) > 0.01)
        target, there = target[inside], there[inside]
        if len(target) == 0:
            continue
        reached = _exact_depth(scenes, j, there)
        visible = (reached / _depths(scenes, j, target) - 1).abs() < 1e-3
        k = scenes.intrinsics[0, j].double()
        ray = torch.cat([(there - k[:2, 2]) / k[[0, 1], [0, 1]], torch.ones(len(there), 1)], 1)
        pose = scenes.camera_from_world[0, j].double()
        met = (ray * reached[:, None] - pose[:, 3]) @ pose[:, :3]
        back, was = _pixels(scenes, i, met[visible]), _pixels(scenes, i, target[visible])
        if len(back):
            assert float((back - was).norm(dim=-1).max()) < 0.1
        seen += int(visible.sum())
    assert seen > 200


def _in_camera(scenes: SceneParameters, view: int, points: Tensor) -> Tensor:
    pose = scenes.camera_from_world[0, view].double()
    return points @ pose[:, :3].T + pose[:, 3]


def _depths(scenes: SceneParameters, view: int, points: Tensor) -> Tensor:
    return _in_camera(scenes, view, points)[:, 2]


def _pixels(scenes: SceneParameters, view: int, points: Tensor) -> Tensor:
    k, seen = scenes.intrinsics[0, view].double(), _in_camera(scenes, view, points)
    return seen[:, :2] / seen[:, 2:] * k[[0, 1], [0, 1]] + k[:2, 2]


def _exact_depth(scenes: SceneParameters, view: int, pixels: Tensor) -> Tensor:
    """Depth along rays through any pixels [N, 2]: N frames of one pixel each."""
    count = len(pixels)
    index = torch.full((count,), view)
    frames = frames_of(scenes, torch.zeros(count, dtype=torch.int64), index)
    shifted = pixels.float() - 0.5
    frames.intrinsics[:, 0, 2] -= shifted[:, 0]
    frames.intrinsics[:, 1, 2] -= shifted[:, 1]
    x, y = camera_rays(frames, (1, 1), (0.5, 0.5))
    depth, _ = trace(frames, x, y)
    return depth.flatten().double()


def test_field_of_view_and_angle_of_the_middle_ray() -> None:
    pose, intrinsics = camera([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    scenes = scene_of([[ROOM], [], [], []], pose, intrinsics, SIZE)
    frames = frames_of(scenes, torch.tensor([0]), torch.tensor([0]))
    x, y = camera_rays(frames, SIZE, (0.5, 0.5))
    assert x.shape == (1, 1, 44) and y.shape == (1, 30, 1)
    assert math.isclose(float(x[0, 0, -1]), (43.5 - 22) / 30, rel_tol=1e-6)


def test_rays_exactly_along_a_face_end_like_their_neighbours() -> None:
    """A camera along an axis, an odd number of pixels: the middle rows' directions have zeros."""
    size = (29, 43)
    level = torch.tensor([[[1.0, 0, 0, 0], [0, 0, -1, 1.5], [0, 1, 0, 0]]])  # looks along +y
    focal = torch.tensor([40.0])
    box = Solid((0.0, 2.0, 1.5), (0.3, 0.3, 0.3), LEVEL, PLAIN)
    drum = Solid((0.6, 2.0, 1.5), (0.1, 0.1, 0.3), LEVEL, PLAIN)
    scenes = scene_of(
        [[ROOM], [box], [], [drum]], level, pinhole(focal, focal, size), size
    )  # fmt: skip
    depth = render_depth(scenes)[0, 0]
    seen = (depth[14, 15:28], depth[8:21, 21])  # x from −0.26 to 0.26 at a depth of 1.7
    for line in seen:
        torch.testing.assert_close(line, torch.full_like(line, 1.7), atol=1e-5, rtol=0)
    torch.testing.assert_close(depth[14], depth[13], atol=1e-5, rtol=0)
    torch.testing.assert_close(depth[:, 0], torch.full((29,), 3.0), atol=1e-5, rtol=0)
    for samples in (1, 4):
        assert render(scenes, samples=samples).images.isfinite().all()


def test_a_ray_along_a_face_and_outside_misses() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    beside = torch.tensor([0.5, 1.5])
    near, far = tracing.box_interval((beside, zero - 3, zero), (zero, one, zero))
    assert (near < far).tolist() == [True, False]
    near, far = tracing.cylinder_interval((zero - 3, zero, beside), (one, zero, zero))
    assert (near < far).tolist() == [True, False]


def test_a_camera_that_touches_the_wall_has_a_picture() -> None:
    pose, intrinsics = camera([0.0, 3.0, 1.2], [0.0, 4.0, 1.2])
    scenes = scene_of([[ROOM], [], [], []], pose, intrinsics, SIZE)
    batch = render(scenes, samples=1)
    assert (batch.depth == 0).any() and batch.images.isfinite().all()
