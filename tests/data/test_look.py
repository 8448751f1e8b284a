"""``--data.textures``: a folder of photos, what is refused, what is skipped and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggt3.checks import DataError, UsageError
from vggt3.data.procedural.bank import sample
from vggt3.data.procedural.look import SHARE, Look
from vggt3.data.procedural.materials import Column
from vggt3.data.procedural.scenes import draw_scene


def noise(path: Path, size: tuple[int, int] = (100, 80), seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(3):
        noise(tmp_path / f"{n}.png", seed=n)
    return tmp_path


def test_without_a_folder_nothing_is_worn() -> None:
    config, textures = Look(views=2).dressed()
    assert textures is None and config.bank == 0 and config.photos == 0


def test_half_of_the_materials_wear_the_folders_photos(folder: Path) -> None:
    config, textures = Look(views=2, textures=folder).dressed()
    assert textures is not None and textures.used == ("0.png", "1.png", "2.png")
    assert (config.bank, config.photos) == (3, SHARE)
    images = torch.cat([draw_scene(config, 0, n).materials[0, :, Column.IMAGE] for n in range(6)])
    used = torch.cat([draw_scene(config, 0, n).materials[0, :, Column.SEED] for n in range(6)]) > 0
    assert set(images[used].tolist()) == {-1.0, 0.0, 1.0, 2.0}
    assert 0.35 < float((images[used] >= 0).float().mean()) < 0.65
    assert Look(photos=0.2, textures=folder).dressed()[0].photos == 0.2


def test_the_bank_is_its_photos(folder: Path) -> None:
    def digest() -> str:
        textures = Look(textures=folder).dressed()[1]
        assert textures is not None
        return textures.bank.digest

    first = digest()
    assert digest() == first
    noise(folder / "1.png", seed=9)  # the same name, the same size
    assert digest() != first


def test_photos_are_seen_as_everywhere(folder: Path) -> None:
    """What is transparent is white, whatever colour lies under it; hidden files are none."""
    clear = np.zeros((80, 80, 4), dtype=np.uint8)
    Image.fromarray(clear).save(folder / "clear.png")
    (folder / ".cache").mkdir()
    noise(folder / "._0.png")
    noise(folder / ".cache" / "0.png")
    textures = Look(textures=folder).dressed()[1]
    assert textures is not None and textures.used == ("0.png", "1.png", "2.png", "clear.png")
    middle = torch.full((1,), 0.5)
    white = sample(textures.bank, torch.tensor([3]), middle, middle, torch.full((1,), 1e-3))
    torch.testing.assert_close(white, torch.ones(3, 1), atol=0.02, rtol=0)


def test_what_is_no_photo_is_skipped_and_said(folder: Path) -> None:
    Image.new("I;16", (90, 90)).save(folder / "depth.png")
    Image.new("RGB", (63, 500)).save(folder / "narrow.jpg")
    (folder / "text.jpg").write_text("not a photo")
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    textures = Look(textures=folder).dressed()[1]
    assert textures is not None and textures.bank.count == 3
    notes = "\n".join(textures.notes())
    assert "cut.png: " in notes and "depth.png: no photo" in notes
    assert "narrow.jpg: 63×500 is less than 64 pixels" in notes
    assert "text.jpg: no readable image" in notes and str(folder) not in notes


def test_many_skipped_files_are_counted(folder: Path) -> None:
    for n in range(30):
        (folder / f"x{n}.jpg").write_text("")
    textures = Look(textures=folder).dressed()[1]
    assert textures is not None
    assert len(textures.notes()) == 21 and textures.notes()[-1] == "skipped 10 more textures"


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a folder, got nothing there"):
        Look(textures=tmp_path / "nowhere").dressed()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="must be a folder, got a file"):
        Look(textures=tmp_path / "file").dressed()
    with pytest.raises(DataError, match="must hold usable photos, got 0 image files"):
        Look(textures=tmp_path).dressed()
    with pytest.raises(UsageError, match=r"--data.photos must stand beside --data.textures"):
        Look(photos=0.5)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"jpeg": (0, 50)}, "--data.jpeg must lie between 1 and 100"),
        ({"thin": (4, 2)}, "--data.thin must be ordered"),
        ({"weak": -0.1}, "--data.weak must be between 0 and 1"),
        ({"materials": 0}, "--data.materials must be at least 1, and finite, got 0"),
        ({"boxes": -1}, "--data.boxes must be at least 0"),
        ({"furniture": (-3, -1)}, "--data.furniture must be at least 0"),
        ({"noise": float("nan")}, "--data.noise must be at least 0, and finite, got nan"),
        ({"turns": -1.0}, "--data.orbits, walks, scattered, turns, advances must be at least 0"),
        ({"orbits": 0, "walks": 0, "scattered": 0}, "not all be 0"),
    ],
)
def test_impossible_looks_are_said(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Look(**knobs)  # type: ignore[arg-type]
