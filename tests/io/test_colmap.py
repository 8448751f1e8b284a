"""The COLMAP model, opened again by pycolmap: it says what the exact scene is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.io.drawn_scene import _pose, drawn_scene
from tests.io.scenes import true_depth, write_scene
from vggt3 import signals
from vggt3.checks import UsageError
from vggt3.io import Cloud
from vggt3.io.export.colmap import write_colmap
from vggt3.io.export.tracks import observe
from vggt3.io.scene_folder import open_scene
from vggt3.types import Cameras

pycolmap = pytest.importorskip("pycolmap")

TOLERANCE = 0.02


def written(scene: Path, out: Path, most: int = 3000, **options: Any) -> Any:
    out.mkdir()
    with open_scene(scene) as opened:
        cloud = opened.cloud(most, 25.0)
        depths = (view.depth for view, _ in opened.views())
        seen = observe(cloud, opened.cameras, depths, TOLERANCE)
        assert seen.own_error < 0.001
        write_colmap(out, opened.cameras, opened.names, cloud, seen, **options)
    return pycolmap.Reconstruction(str(out))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cameras]:
    place = tmp_path_factory.mktemp("colmap") / "scene"
    return place, write_scene(place)[0]


@pytest.fixture(scope="module")
def model(scene: tuple[Path, Cameras], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(scene[0], tmp_path_factory.mktemp("model") / "0")


def sightings(model: Any) -> list[tuple[Any, Any, Any]]:
    """Every (image, 2-D point, 3-D point) of a model."""
    return [
        (image, point, model.points3D[point.point3D_id])
        for image in model.images.values()
        for point in image.points2D
        if point.has_point3D()
    ]


def test_cameras_are_the_photos_own(scene: tuple[Path, Cameras], model: Any) -> None:
    cameras = scene[1]
    names = drawn_scene(5)[0].names
    assert [model.images[n + 1].name for n in range(5)] == list(names)
    for n in range(5):
        camera, k = model.cameras[n + 1], cameras.intrinsics[n]
        assert (camera.height, camera.width) == cameras.sizes[n]
        assert camera.model.name == "PINHOLE"
        np.testing.assert_allclose(camera.params, [k[0, 0], k[1, 1], k[0, 2], k[1, 2]], rtol=1e-6)
        pose = model.images[n + 1].cam_from_world().matrix()
        np.testing.assert_allclose(pose, cameras.camera_from_world[n], atol=1e-6)


def test_points_reproject_into_their_sightings(model: Any) -> None:
    errors = [
        np.linalg.norm(image.project_point(point3d.xyz) - point.xy)
        for image, point, point3d in sightings(model)
    ]
    assert len(errors) > 6000
    assert max(errors) < 0.01  # pixels of the photos
    assert model.compute_mean_reprojection_error() < 0.001


def test_each_point_is_at_a_pixel_centre_of_its_own_view(model: Any) -> None:
    """Photos are twice the size of the maps: centres of map pixels lie at odd coordinates."""
    at_centres = {
        point.point3D_id
        for _, point, _ in sightings(model)
        if np.array_equal(point.xy % 2, [1.0, 1.0])
    }
    assert at_centres == set(model.points3D)


def test_a_view_sees_a_point_just_where_nothing_hides_it(model: Any, scene: Any) -> None:
    cameras, world_from_first = scene[1], _pose(-0.5)
    seen = {(image.image_id, point.point3D_id) for image, point, _ in sightings(model)}
    both = only_told = only_true = hidden = 0
    for image in model.images.values():
        n = image.image_id - 1
        first_from_camera = np.linalg.inv(
            np.vstack([cameras.camera_from_world[n].double().numpy(), [0, 0, 0, 1]])
        )
        matrix = cameras.intrinsics[n].double().numpy()
        height, width = cameras.sizes[n]
        for number in list(model.points3D)[::5]:
            xyz = model.points3D[number].xyz
            z = (image.cam_from_world() * xyz)[2]
            pixel = image.project_point(xyz)
            inside = z > 0 and (pixel >= 0).all() and (pixel < [width, height]).all()
            truth = False
            if inside:
                depth = true_depth(first_from_camera, matrix, pixel, world_from_first)
                truth = abs(z - depth) < 1e-3 * depth
                hidden += not truth
            told = (image.image_id, number) in seen
            both += told and truth
            only_told += told and not truth
            only_true += truth and not told
    assert hidden > 0.05 * both  # so that a rule without occlusion would show
    assert only_told < 0.005 * both, (both, only_told)
    # What is missed lies on ground so steep that depth changes by more within one pixel.
    assert only_true < 0.05 * both, (both, only_true)


def test_colours_are_the_photo_s(model: Any) -> None:
    photos = drawn_scene(5)[0].photos
    checked = 0
    for image, point, point3d in sightings(model):
        if np.array_equal(point.xy % 2, [1.0, 1.0]) and len(point3d.track.elements) == 1:
            column, row = (point.xy // 2).astype(int)
            pixel = photos[image.image_id - 1].image[:, row, column]
            assert point3d.color.tolist() == pixel.tolist()
            checked += 1
    assert checked > 50


def test_text_says_the_same(scene: tuple[Path, Cameras], model: Any, tmp_path: Path) -> None:
    text = written(scene[0], tmp_path / "text", form="text")
    assert {path.suffix for path in (tmp_path / "text").iterdir()} == {".txt"}
    assert text.compute_num_observations() == model.compute_num_observations()
    for number, point in model.points3D.items():
        np.testing.assert_allclose(text.points3D[number].xyz, point.xyz, rtol=1e-12)


def test_a_view_that_sees_nothing_stays(tmp_path: Path) -> None:
    """A camera that looks away: in the model without a sighting, and names may hold spaces."""
    away = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0]])
    pose = torch.stack([torch.eye(3, 4), away])
    k = torch.tensor([[50.0, 0, 5], [0, 50, 5], [0, 0, 1]]).expand(2, 3, 3)
    cameras = Cameras(pose, k, ((10, 10), (10, 10)))
    cloud = Cloud(
        torch.tensor([[0.01, 0.01, 1.0]]),
        torch.tensor([[1, 2, 3]], dtype=torch.uint8),
        torch.tensor([[0, 55]]),
    )
    seen = observe(cloud, cameras, [torch.ones(10, 10), torch.full((10, 10), torch.nan)], 0.02)
    assert (seen.view.tolist(), seen.point.tolist()) == ([0], [0])
    assert seen.pixels.tolist() == [[5.5, 5.5]]
    names = ["a b.jpg", "c/d é.jpg"]
    write_colmap(tmp_path, cameras, names, cloud, seen)
    again = pycolmap.Reconstruction(str(tmp_path))
    assert [again.images[n].name for n in (1, 2)] == names
    assert again.images[2].num_points3D == 0
    assert again.num_reg_images() == 2
    with pytest.raises(UsageError, match=r"be left out where a photo's name .* got 'a b.jpg'"):
        write_colmap(tmp_path, cameras, names, cloud, seen, form="text")


def test_what_is_infinitely_far_agrees_with_nothing() -> None:
    k = torch.tensor([[50.0, 0, 5], [0, 50, 5], [0, 0, 1]]).expand(2, 3, 3)
    cameras = Cameras(torch.eye(3, 4).expand(2, 3, 4), k, ((10, 10), (10, 10)))
    xyz, rgb = torch.tensor([[0.01, 0.01, 1.0]]), torch.ones(1, 3, dtype=torch.uint8)
    far = torch.full((10, 10), torch.inf)
    seen = observe(
        Cloud(xyz, rgb, torch.tensor([[0, 55]])), cameras, [torch.ones(10, 10), far], 0.02
    )
    assert seen.view.tolist() == [0]


def test_points_off_their_pixels_are_measured() -> None:
    """Half a pixel, as heads that put pixel centres at whole numbers give."""
    k = torch.tensor([[[50.0, 0, 5], [0, 50, 5], [0, 0, 1]]])
    cameras = Cameras(torch.eye(3, 4)[None], k, ((20, 20),)).resized([(20, 20)])
    cloud = Cloud(
        torch.tensor([[0.0, 0.0, 1.0]]),
        torch.zeros(1, 3, dtype=torch.uint8),
        torch.tensor([[0, 5 * 20 + 5]]),
    )
    seen = observe(cloud, cameras, [torch.ones(20, 20)], 0.02)
    assert seen.own_error == pytest.approx(0.5 * 2**0.5)
    with pytest.raises(UsageError, match="know where its points came from"):
        observe(Cloud(cloud.xyz, cloud.rgb), cameras, [torch.ones(20, 20)], 0.02)


ENDING = """
import os, signal, sys, time
from vggt3.signals import import_pycolmap
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
import_pycolmap()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_a_polite_kill_is_heeded_beside_pycolmap() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr) == (7, b"")


def test_there_is_one_way_to_import_pycolmap() -> None:
    source = Path(signals.__file__).parent
    texts = {path: path.read_text("utf-8") for path in source.rglob("*.py")}
    way = re.compile(r"^ *(import|from) pycolmap|import_module\(.pycolmap", re.MULTILINE)
    assert [path.name for path, text in texts.items() if way.search(text)] == ["signals.py"]
