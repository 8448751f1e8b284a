"""Views at the model's size: depth is picked, never mixed; what does not fit together is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.data.layouts import drawn, write_scannet, write_sevenscenes
from vggt3.checks import DataError
from vggt3.data.readers.layout import read_scenes
from vggt3.data.readers.record import Scene
from vggt3.evaluation.loading import load_views, nearest


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    write_sevenscenes(tmp_path, drawn(views=2))
    return read_scenes("sevenscenes", tmp_path)[0]


def test_depth_is_picked_by_pixel_centres() -> None:
    depth = torch.arange(6.0).reshape(2, 3)
    assert nearest(depth, (2, 3)).equal(depth)
    # Centres at 0.75, 2.25 of 3 across; at 1.0 of 2 down: the lower row.
    assert nearest(depth, (1, 2)).tolist() == [[3, 5]]
    assert nearest(depth, (4, 3))[:, 0].tolist() == [0, 0, 3, 3]


def test_the_whole_image_at_the_models_size(scene: Scene) -> None:
    loaded = load_views(scene, [1, 0], 28, ("pose", "intrinsics", "depth"))
    assert loaded.names == ("frame-000001", "frame-000000")
    assert loaded.sizes == ((28, 28),) * 2 and loaded.images[0].shape == (3, 28, 28)
    assert loaded.intrinsics is not None and loaded.depth is not None
    # 48 × 64 → 28 × 28: 52.5 · 28/64 across, 52.5 · 28/48 down.
    assert loaded.intrinsics[0].diagonal().tolist() == pytest.approx([22.96875, 30.625, 1])
    assert loaded.intrinsics[0, :2, 2].tolist() == pytest.approx([14, 14])
    known = scene.views[1].depth_map()
    assert set(loaded.depth[0].unique().tolist()) <= set(known.unique().tolist())
    bare = load_views(scene, [0], 28, ("depth",), images=False)
    assert bare.images == () and bare.poses is None and bare.sizes == ((28, 28),)


def test_depth_of_other_proportions_is_refused(tmp_path: Path) -> None:
    """ScanNet's depth may be smaller than its images, but must show the same."""
    write_scannet(tmp_path, drawn(views=1))
    (scene,) = read_scenes("scannet", tmp_path)
    half = replace(scene.views[0], depth=lambda: torch.ones(24, 32))
    loaded = load_views(replace(scene, views=(half,)), [0], 56, ("depth",))
    assert loaded.depth is not None and loaded.depth[0].shape == (42, 56)
    odd = replace(scene.views[0], depth=lambda: torch.ones(48, 48))
    with pytest.raises(DataError, match="proportions of its image, 48×64, got 48×48"):
        load_views(replace(scene, views=(odd,)), [0], 56, ("depth",))


def test_a_mask_of_another_size_is_refused(scene: Scene) -> None:
    view = replace(scene.views[0], mask=lambda: torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(DataError, match="mask of view frame-000000 must have the depth's size"):
        load_views(replace(scene, views=(view,)), [0], 56, ("depth",))


def test_what_is_missing_is_said(scene: Scene) -> None:
    view = replace(scene.views[0], pose=None)
    with pytest.raises(DataError, match="must have pose, depth, got no pose"):
        load_views(replace(scene, views=(view,)), [0], 56, ("pose", "depth"))
