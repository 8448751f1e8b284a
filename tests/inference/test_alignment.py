"""Known cameras bring a map into the user's frame, or say why they cannot."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.attention.scenes import photos
from tests.inference.conftest import engine_of
from vggt3 import checks
from vggt3.attention.registry import LayerSpec
from vggt3.geometry.alignment import Similarity
from vggt3.geometry.camera import invert_pose
from vggt3.geometry.rotation import random_rotation
from vggt3.inference.alignment import align
from vggt3.inference.mapping import map_taken
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import take
from vggt3.io.reference_cameras import ReferenceCameras
from vggt3.types import Views

NAMES = tuple(f"{n}.jpg" for n in range(5))
CENTRES = torch.tensor(
    [[0.0, 0, 0], [1, 0.2, 0], [2, -0.1, 0.5], [0.3, 1, 1], [1, 1, 2]], dtype=torch.float64
)


@pytest.fixture(scope="module")
def mapped() -> SceneMemory:
    engine = engine_of(LayerSpec("ttt_mlp"))
    return replace(map_taken(engine, take(Views.from_list(photos()), 42)), names=NAMES)


def standing(scene: SceneMemory, centres: Tensor) -> SceneMemory:
    """The scene with its cameras at ``centres``."""
    turns = random_rotation((len(centres),), torch.Generator().manual_seed(2), torch.float64)
    poses = invert_pose(torch.cat([turns, centres[..., None]], dim=-1))
    return replace(scene, cameras=replace(scene.cameras, camera_from_world=poses))


def known_at(
    centres: Tensor, names: tuple[str, ...] = NAMES, *, turns: Tensor | None = None
) -> ReferenceCameras:
    """A reference with cameras at ``centres``."""
    turns = torch.eye(3).double().expand(len(centres), 3, 3) if turns is None else turns
    poses = torch.cat([turns, centres[..., None]], dim=-1)
    return ReferenceCameras(Path("r"), names, poses)


def test_a_known_similarity_is_found(mapped: SceneMemory) -> None:
    turn = random_rotation((), torch.Generator().manual_seed(1), torch.float64)
    shift = torch.tensor([3.0, -1, 2]).double()
    motion = Similarity(torch.tensor(4.0).double(), turn, shift)
    scene = standing(mapped, CENTRES)
    poses = invert_pose(motion.apply_to_cameras(scene.cameras.camera_from_world))
    known = ReferenceCameras(Path("r"), NAMES[::-1], poses.flip(0), True)
    found = align(scene, known)
    assert (found.photos, found.metric) == (5, True)
    assert found.residual < 1e-9
    assert torch.allclose(found.similarity.apply(CENTRES), motion.apply(CENTRES), atol=1e-9)
    assert "5 photos, residual" in found.describe()
    assert "scale 4" in found.describe()
    assert found.rotation_deg < 1e-4 and found.warning() is None
    assert found.extent == pytest.approx(4 * float(CENTRES.var(0, correction=0).sum().sqrt()))


def test_a_reference_far_from_its_origin_is_said(mapped: SceneMemory) -> None:
    scene = standing(mapped, CENTRES)
    far = torch.tensor([465000.0, 5428000, 200]).double()
    assert align(scene, known_at(CENTRES)).grid() is None
    told = align(scene, known_at(CENTRES + far)).grid() or ""
    assert "so large (5.428e+06)" in told and "lie 0.65 apart" in told


def test_cameras_that_look_elsewhere_are_said(mapped: SceneMemory) -> None:
    """Centres fit exactly; every known camera is turned by 40° about its own axis."""
    scene = standing(mapped, CENTRES)
    poses = invert_pose(scene.cameras.camera_from_world)
    c, s = math.cos(math.radians(40)), math.sin(math.radians(40))
    about_z = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    found = align(scene, known_at(CENTRES, turns=poses[..., :3] @ about_z))
    assert found.residual < 1e-9
    assert found.rotation_deg == pytest.approx(40, abs=1e-4)
    assert "and 40.0°, scale" in found.describe()
    assert "turned from the map's by 40°" in (found.warning() or "")


def test_the_residual_is_the_root_mean_square_that_is_left(mapped: SceneMemory) -> None:
    noise = 0.05 * torch.randn(5, 3, generator=torch.Generator().manual_seed(4)).double()
    target = CENTRES + noise
    found = align(standing(mapped, CENTRES), known_at(target))
    left = (found.similarity.apply(CENTRES) - target).norm(dim=-1)
    assert found.residual == pytest.approx(float(left.square().mean().sqrt()))
    assert 0.01 < found.residual < 0.05 * 3**0.5


def test_what_determines_no_frame_is_refused(mapped: SceneMemory) -> None:
    scene = standing(mapped, CENTRES)
    line = torch.arange(5.0).double()[:, None] * torch.tensor([1.0, 2, 3]).double()
    shaky = line + 1e-5 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    for scene_, names, centres, message in (
        (scene, NAMES[:2], CENTRES[:2], r"at least 3 of the map's photos by their names, got 2"),
        (scene, ("a.jpg", "b.jpg", "c.jpg"), CENTRES[:3], r"got 0 \(the map has 0.jpg, 1.jpg, …"),
        (scene, NAMES, line, "reference 'r' must not all lie on one line"),
        (scene, NAMES, shaky, "one line"),
        (scene, NAMES, torch.zeros(5, 3).double(), "one line or in one place"),
        (standing(mapped, line), NAMES, CENTRES, "the map's centres .* one line"),
    ):
        with pytest.raises(checks.DataError, match=message):
            align(scene_, known_at(centres, names))
    poses = scene.cameras.camera_from_world.clone()
    poses[:3] = torch.nan
    blind = replace(scene, cameras=replace(scene.cameras, camera_from_world=poses))
    with pytest.raises(checks.DataError, match="at least 3"):
        align(blind, known_at(CENTRES))
