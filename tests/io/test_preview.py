"""preview.png: drawn for any scene, and what it shows is where it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.io.drawn_scene import drawn_scene
from vggt3.io import Cloud, SampledCloud
from vggt3.io.export import preview
from vggt3.io.export.colours import depth_colours
from vggt3.io.export.splat import splat
from vggt3.io.export.viewpoint import fitted, look, scene_frame
from vggt3.types import Cameras, DenseView


def draw(path: Path, views: int, cameras: Cameras | None = None) -> Image.Image:
    photos, known, dense = drawn_scene(views, ((28, 42), (42, 28)))
    cloud = SampledCloud()
    for view in dense:
        cloud.add(view, photos.photos[view.index].image)
    strip = [
        preview.strip_entry(photos.names[n], dense[n], photos.photos[n].image)
        for n in preview.shown_indices(views)
    ]
    preview.write_preview(path, strip, cloud.cloud(), cameras or known)
    with Image.open(path) as picture:
        return picture.convert("RGB")


@pytest.mark.parametrize("views", [1, 2, 12])
def test_any_number_of_views(tmp_path: Path, views: int) -> None:
    picture = draw(tmp_path / "preview.png", views)
    assert picture.width == 1600 and 700 < picture.height < 2400
    reds = np.asarray(picture).astype(int)
    panels = reds[-628:-28]
    ball = (panels[..., 0] > 130) & (panels[..., 1] < 100)
    assert ball[:, :800].sum() > 200 and ball[:, 800:].sum() > 200
    assert (tmp_path / "preview.png").stat().st_size < 4_000_000


def test_at_most_eight_photos_evenly_spaced() -> None:
    assert preview.shown_indices(1) == (0,)
    assert preview.shown_indices(8) == tuple(range(8))
    assert preview.shown_indices(100) == (0, 14, 28, 42, 57, 71, 85, 99)


@pytest.mark.filterwarnings("error")
def test_nothing_finite_is_drawn_all_the_same(tmp_path: Path) -> None:
    photos, cameras, dense = drawn_scene(2)
    lost = replace(cameras, camera_from_world=cameras.camera_from_world * float("nan"))
    nothing = torch.full_like(dense[0].depth, float("nan"))
    view = DenseView(0, nothing, nothing, nothing[..., None].expand(-1, -1, 3), nothing)
    strip = [preview.strip_entry("a" * 90 + ".jpg", view, photos.photos[0].image)]
    empty = Cloud(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8))
    preview.write_preview(tmp_path / "p.png", strip, empty, lost)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width == 1600


@pytest.mark.filterwarnings("error")
def test_wild_numbers_of_an_untrained_model(tmp_path: Path) -> None:
    photos, cameras, dense = drawn_scene(2)
    wild = replace(cameras, intrinsics=cameras.intrinsics.clone())
    wild.intrinsics[0, 0, 0] = float("inf")
    wild.intrinsics[1, 0, 0] = 1e-6
    points = dense[0].points.clone()
    points[0, 0] = 3e38
    points[0, 1] = -3e38
    depth = dense[0].depth.clone()
    depth[0, 0], depth[0, 1] = 3e38, 0
    strip = [preview.strip_entry("a", replace(dense[0], depth=depth), photos.photos[0].image)]
    cloud = SampledCloud()
    cloud.add(replace(dense[0], points=points), photos.photos[0].image)
    preview.write_preview(tmp_path / "p.png", strip, cloud.cloud(), wild)


def test_a_panorama_in_the_strip(tmp_path: Path) -> None:
    cameras = drawn_scene(1)[1]
    flat = torch.ones(14, 5180)
    view = DenseView(0, flat, flat, flat[..., None].expand(-1, -1, 3), flat)
    strip = [preview.strip_entry("wide", view, torch.zeros(3, 14, 5180, dtype=torch.uint8))]
    preview.write_preview(
        tmp_path / "p.png", strip, Cloud(torch.zeros(1, 3), torch.zeros(1, 3).byte()), cameras
    )


def test_near_is_light_and_far_is_dark() -> None:
    grey = depth_colours(np.linspace(1, 0, 50)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(grey) < 0).all()
    assert depth_colours(np.array([np.nan])).tolist() == [[58, 62, 70]]


def test_the_nearer_point_hides_the_farther() -> None:
    pixels = np.array([[10.0, 10.0], [10.0, 10.0], [np.nan, 3.0], [99.0, 3.0]])
    rgb = np.array([[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]], np.uint8)
    colours, depths = splat(pixels, np.array([5.0, 2.0, 1.0, 1.0]), rgb, (48, 48))
    assert colours[10, 10, 0] == 2 and depths[10, 10] == 2
    assert set(np.unique(colours)) == {0, 2}


def test_gaps_close_and_outlines_stay() -> None:
    x, y = np.meshgrid(np.arange(20, 80, 6), np.arange(20, 80, 6))
    pixels = np.stack([x.ravel(), y.ravel()], axis=-1) + 0.5
    rgb = np.full((len(pixels), 3), 200, np.uint8)
    _, depths = splat(pixels, np.ones(len(pixels)), rgb, (96, 96))
    shown = np.isfinite(depths)
    assert shown[20:75, 20:75].all()
    assert not shown[:12].any() and not shown[84:].any()


def test_both_sides_show_points_and_cameras() -> None:
    _, cameras, dense = drawn_scene(5)
    poses = cameras.world_from_camera.double().numpy()
    points = torch.cat([v.points.reshape(-1, 3) for v in dense]).double().numpy()
    frame = scene_frame(points, poses)
    assert np.allclose(frame.axes @ frame.axes.T, np.eye(3)) and np.linalg.det(frame.axes) < 0
    for azimuth, elevation in ((0.0, 72.0), (38.0, 20.0)):
        view = fitted(look(frame, (600, 800), azimuth, elevation), points, poses[:, :, 3])
        assert np.isclose(np.linalg.det(view.rotation), 1)
        where, depth = view.project(np.concatenate([points, poses[:, :, 3]]))
        inside = ((where >= 0) & (where <= (800, 600))).all(axis=1)
        assert inside.mean() > 0.85 and inside[-5:].all() and (depth > 0).all()
        # Up in the world is up in the picture.
        lower, higher = view.project(np.stack([frame.middle, frame.middle + frame.axes[1]]))[0]
        assert higher[1] < lower[1]


def test_a_lost_camera_does_not_shrink_the_scene() -> None:
    _, cameras, dense = drawn_scene(5)
    poses = cameras.world_from_camera.double().numpy()
    points = dense[0].points.reshape(-1, 3).double().numpy()
    radius = scene_frame(points, poses).radius
    poses[3, :, 3] = 1e4
    assert scene_frame(points, poses).radius < 1.5 * radius
