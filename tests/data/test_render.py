"""Pictures: repeatable, the same from everywhere, shadows where a solid stands before the light."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.drawn import LEVEL, PLAIN, ROOM, quiet, scene_of
from vggt3.checks import DataError
from vggt3.data.procedural import shadow
from vggt3.data.procedural.bank import SIDE, build, load, sample
from vggt3.data.procedural.build import Solid
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.leaves import drawn_bank
from vggt3.data.procedural.render import exact_products, render
from vggt3.data.procedural.scene import SceneBatch, collate
from vggt3.data.procedural.scenes import draw_scene
from vggt3.geometry.camera import look_at, pinhole
from vggt3.geometry.projection import project, unproject

SIZE = (28, 42)


def drawn(index: int = 0, **knobs: object) -> SceneBatch:
    config = ProceduralConfig(**{"views": 3, "size": SIZE, **knobs})  # type: ignore[arg-type]
    return render(draw_scene(config, 5, index), samples=1)


def test_shapes_and_ranges() -> None:
    batch = drawn(outdoors=1.0)
    assert batch.images.shape == (1, 3, 3, *SIZE)
    assert batch.depth.shape == batch.valid.shape == (1, 3, *SIZE)
    assert batch.images.isfinite().all() and batch.depth.isfinite().all()
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    assert (batch.valid == (batch.depth > 0)).all()
    torch.testing.assert_close(batch.camera_from_world[0, 0], torch.eye(3, 4))


def test_rooms_are_closed_and_yards_are_open() -> None:
    assert all(drawn(n, outdoors=0.0).valid.all() for n in range(4))
    assert not all(drawn(n, outdoors=1.0).valid.all() for n in range(4))


def test_the_same_seed_gives_the_same_pictures() -> None:
    first, second = drawn(4), drawn(4)
    for name in ("images", "depth", "camera_from_world", "intrinsics"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(drawn(5).images, first.images)


def test_scenes_side_by_side_are_the_scenes_alone() -> None:
    config = ProceduralConfig(views=2, size=SIZE)
    alone = [draw_scene(config, 2, n) for n in range(3)]
    together = render(collate(alone), samples=1)
    for n, scene in enumerate(alone):
        single = render(scene, samples=1)
        torch.testing.assert_close(together.images[n], single.images[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(together.depth[n], single.depth[0], atol=1e-5, rtol=0)


def test_many_views_at_once_is_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ProceduralConfig(views=3, size=SIZE)
    scenes = collate([draw_scene(config, 2, n) for n in range(2)])
    wanted = render(scenes, samples=1)
    monkeypatch.setattr("vggt3.data.procedural.render.views_at_once", lambda *_: 4)
    got = render(scenes, samples=1)
    torch.testing.assert_close(got.images, wanted.images, atol=1e-4, rtol=0)
    torch.testing.assert_close(got.depth, wanted.depth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("index", range(3))
def test_a_place_has_one_colour_from_everywhere(index: int) -> None:
    config = ProceduralConfig(views=2, size=(84, 84), spread=(0.05, 0.1), outdoors=0.0)
    scenes = quiet(draw_scene(config, 8, index))
    batch = render(scenes)
    points = unproject(batch.depth, batch.intrinsics, batch.camera_from_world, 0.5)
    pixels, depth = project(
        points[:, 0].flatten(1, 2), batch.intrinsics[:, 1], batch.camera_from_world[:, 1]
    )
    place = (pixels / 84 * 2 - 1).reshape(1, 84, 84, 2)

    def there(maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grid_sample(maps, place, align_corners=False)

    seen = (there(batch.depth[:, 1:2])[0, 0] / depth.reshape(84, 84) - 1).abs() < 0.01
    seen &= (place.abs() < 1).all(-1)[0]
    assert float(seen.float().mean()) > 0.2
    here, other = batch.images[0, 0][:, seen], there(batch.images[:, 1])[0][:, seen]
    # Every view has its own exposure.
    other = (other - other.mean()) / other.std() * here.std() + here.mean()
    difference = (here - other).abs().mean()
    assert float(difference) < 0.4 * float((here.flip(-1) - here).abs().mean())


def test_shadow_falls_behind_the_ball_and_nowhere_else() -> None:
    ball = Solid((0.0, 0.0, 1.5), (0.3, 0.3, 0.3), LEVEL, PLAIN)
    pose = look_at(
        torch.tensor([[0.0, -2.5, 1.0]]), torch.tensor([[0.0, 0, 0]]), torch.tensor([[0.0, 0, 1]])
    )
    scenes = scene_of(
        [[ROOM], [], [ball], []], pose, pinhole(torch.ones(1) * 30, torch.ones(1) * 30, SIZE), SIZE
    )
    frames = shadow_frames(scenes)
    light = torch.tensor([[0.0, 0.0, 2.9]])
    # Cone of half angle asin(0.3/1.4): radius on the floor 2.9·tan.
    radius = 2.9 * 0.3 / (1.4**2 - 0.3**2) ** 0.5
    x, y = torch.meshgrid(torch.linspace(-2, 2, 50), torch.linspace(-2, 2, 40), indexing="xy")
    places = torch.stack([x, y, torch.full_like(x, 1e-3)])[None]
    dark = shadow.occluded(frames, light, torch.tensor([-1]), places)[0]
    distance = (x * x + y * y).sqrt()
    assert dark[distance < radius - 0.01].all()
    assert not dark[distance > radius + 0.01].any()


def shadow_frames(scenes: object):  # type: ignore[no-untyped-def]
    from vggt3.data.procedural.trace import frames_of

    return frames_of(scenes, torch.tensor([0]), torch.tensor([0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("outdoors", [0.0, 1.0])
def test_skipping_far_tiles_changes_no_shadow(
    outdoors: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ProceduralConfig(views=2, size=SIZE, outdoors=outdoors)
    scenes = draw_scene(config, 6, 2)
    wanted = render(scenes, samples=1).images

    def every(frames: object, light: object, way: torch.Tensor) -> torch.Tensor:
        solids = frames.origin.shape[1]  # type: ignore[attr-defined]
        return torch.ones(way.shape[0], solids, way.shape[1], dtype=torch.bool)

    monkeypatch.setattr(shadow, "_near_tiles", every)
    torch.testing.assert_close(render(scenes, samples=1).images, wanted, atol=0, rtol=0)


def test_sun_comes_in_through_its_window_only() -> None:
    window = Solid((0.0, 3.1, 1.5), (0.5, 0.15, 0.5), LEVEL, PLAIN)
    pose = look_at(
        torch.tensor([[0.0, -2.5, 1.0]]), torch.tensor([[0.0, 0, 0]]), torch.tensor([[0.0, 0, 1]])
    )
    scenes = scene_of(
        [[ROOM, window], [], [], []], pose, pinhole(torch.ones(1) * 30, torch.ones(1) * 30, SIZE),
        SIZE,
    )  # fmt: skip
    frames = shadow_frames(scenes)
    sun = torch.tensor([[0.0, 60.0, 60.0]])
    x, y = torch.meshgrid(torch.linspace(-2, 2, 41), torch.linspace(-2, 2.9, 50), indexing="xy")
    places = torch.stack([x, y, torch.full_like(x, 1e-3)])[None]
    lit = ~shadow.occluded(frames, sun, torch.tensor([1]), places)[0]
    assert lit.any() and not lit[:, (x[0].abs() > 0.51)].any()
    # At 45°, light through heights 1–2 of the window's outer face meets the floor 1–2 m inside.
    assert float(y[lit].max()) < 3.25 - 1.0 and float(y[lit].min()) > 3.0 - 2.1
    assert shadow.occluded(frames, sun, torch.tensor([-1]), places).all()


def test_photos_of_the_bank_appear_on_surfaces() -> None:
    red = torch.zeros(2, 3, SIDE, SIDE)
    red[:, 0] = 1
    config = ProceduralConfig(views=2, size=SIZE, photos=1.0, bank=2, outdoors=0.0)
    scenes = quiet(draw_scene(config, 1, 0))
    plain, dressed = render(scenes, samples=1), render(scenes, build(red), samples=1)
    assert torch.equal(plain.depth, dressed.depth)
    excess = dressed.images[:, :, 0] - dressed.images[:, :, 2]
    assert float((excess > 0.05).float().mean()) > 0.5


def test_bank_is_bilinear_and_reduces_with_distance() -> None:
    photo = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    bank = build(photo)
    assert bank.count == 1
    index = torch.zeros(3, dtype=torch.int64)
    centre = torch.tensor([10.5, 20.5, 30.5]) / SIDE
    sharp = torch.full((3,), 1 / SIDE)
    got = sample(bank, index, centre, centre, sharp)
    wanted = torch.stack([photo[0, :, n, n] for n in (10, 20, 30)], dim=1) ** 2.2
    step = 1.1e-3  # of ten bits, as a square root
    torch.testing.assert_close(got, wanted, atol=step, rtol=0)
    mirrored = sample(bank, index, -centre, 2 - centre, sharp)
    torch.testing.assert_close(mirrored, got, atol=1e-5, rtol=0)
    far = sample(bank, index, centre, centre, torch.full((3,), 2.0))
    torch.testing.assert_close(far[:, 0], photo[0].pow(2.2).mean((1, 2)), atol=step, rtol=0)


def test_a_bank_keeps_every_level_of_an_8_bit_photo() -> None:
    levels = torch.arange(256) / 255
    photo = torch.stack([levels.expand(SIDE, SIDE), levels.flip(0).expand(SIDE, SIDE)])
    bank = build(torch.cat([photo, photo[:1]])[None])
    place = (torch.arange(256) + 0.5) / SIDE
    whole = torch.zeros(256, dtype=torch.int64)
    got = sample(bank, whole, place, place, torch.full((256,), 1 / SIDE)) ** (1 / 2.2)
    wanted = torch.stack([levels, levels.flip(0), levels])
    torch.testing.assert_close(got * 255, wanted * 255, atol=0.2, rtol=0)
    assert bank.texels.nbytes < 350_000


def test_bank_from_a_folder_names_what_it_skips(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8)
    (tmp_path / "deep").mkdir()
    Image.fromarray(pixels).save(tmp_path / "deep" / "good.png")
    Image.fromarray(pixels[:20]).save(tmp_path / "flat.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "notes.txt").write_text("no photo either")
    loaded = load(tmp_path)
    assert loaded.bank.count == 1 and loaded.used == ("deep/good.png",)
    assert [name for name, _ in loaded.skipped] == ["broken.jpg", "flat.png"]
    assert "64 pixels" in loaded.skipped[1][1]
    middle = torch.from_numpy(pixels[:, 25:115]).float().div(255).pow(2.2).mean((0, 1))
    whole = torch.zeros(1, dtype=torch.int64)
    mean = sample(loaded.bank, whole, torch.zeros(1), torch.zeros(1), torch.full((1,), 9.0))
    torch.testing.assert_close(mean[:, 0], middle, atol=0.05, rtol=0)
    (tmp_path / "deep" / "good.png").unlink()
    with pytest.raises(DataError, match=r"hold usable photos, got 2 image files \(broken"):
        load(tmp_path)


def test_drawn_pictures_are_repeatable_and_all_different() -> None:
    bank = drawn_bank(3, 5)
    first, again = bank.texels, drawn_bank(3, 5).texels
    assert torch.equal(first, again) and first.shape == (3, (4 * SIDE**2 - 1) // 3)
    assert torch.equal(drawn_bank(1, 5).texels[0], first[0])
    assert bank.digest == drawn_bank(3, 5).digest != drawn_bank(3, 6).digest
    assert float((first[0] != first[1]).float().mean()) > 0.9
    assert float((first[:, : SIDE**2] & 1023).float().std()) > 30


def test_photometry_is_per_view_and_mild() -> None:
    config = ProceduralConfig(views=4, size=SIZE, outdoors=0.0)
    scenes = draw_scene(config, 7, 0)
    still = replace(quiet(scenes))
    ratio = render(scenes, samples=1).images.mean((2, 3, 4)) / render(still, samples=1).images.mean(
        (2, 3, 4)
    )
    assert float(ratio.std()) > 0.001
    assert float(ratio.min()) > 0.5 and float(ratio.max()) < 2


def test_views_side_by_side_are_views_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    scenes = draw_scene(ProceduralConfig(views=3, size=SIZE), 3, 0)
    try:
        torch.set_num_threads(1)
        wanted = render(scenes)
        torch.set_num_threads(2)
        got = render(scenes)
        assert torch.get_num_threads() == 2
        assert torch.equal(got.images, wanted.images) and torch.equal(got.depth, wanted.depth)
        monkeypatch.setattr("vggt3.data.procedural.render.trace", None)
        with pytest.raises(TypeError):
            render(scenes)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_geometry_keeps_its_bits_whatever_a_training_allows() -> None:
    before = torch.get_float32_matmul_precision()
    seen = []
    try:
        torch.set_float32_matmul_precision("high")
        with exact_products():
            seen.append(torch.get_float32_matmul_precision())
        seen.append(torch.get_float32_matmul_precision())
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest", "high"]
