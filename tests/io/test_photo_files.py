"""Photos found again by the scene's names, upright where they are put."""

from __future__ import annotations

import errno
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggt3.checks import DataError
from vggt3.io import read_video
from vggt3.io.photo_files import find_photo_files, put_photos


def photo(path: Path, orientation: int = 1, size: tuple[int, int] = (32, 24)) -> Path:
    """A dark picture (width, height) with a bright top-left quarter, as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 20, np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 240
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_a_photo_on_its_side_is_written_upright(tmp_path: Path, ending: str) -> None:
    photo(tmp_path / f"in/a.{ending}", orientation=6)
    [found] = find_photo_files(str(tmp_path / "in"), [f"a.{ending}"], [(32, 24)])
    for link in (True, False):
        target = tmp_path / f"{link}/a.{ending}"
        put_photos([found], target.parent, link)
        with Image.open(target) as image:
            assert not target.is_symlink()
            assert image.size == (24, 32)
            assert image.getexif().get(0x0112, 1) == 1
            pixels = np.asarray(image.convert("L"))
        assert pixels[4, 20] > 200 and pixels[4, 4] < 60  # top right, after a quarter clockwise
        assert pixels[28, 20] < 60 and pixels[28, 4] < 60


def test_an_upright_photo_is_copied_byte_by_byte_or_linked(tmp_path: Path) -> None:
    source = photo(tmp_path / "in/sub/a b.jpg")
    photo(tmp_path / "in/c.jpg")
    listing = tmp_path / "in/list.txt"
    listing.write_text("sub/a b.jpg\nc.jpg\n")
    found = find_photo_files(str(listing), ["sub/a b.jpg"], [(24, 32)])
    put_photos(found, tmp_path / "copy", link=False)
    put_photos(found, tmp_path / "link", link=True)
    assert (tmp_path / "copy/sub/a b.jpg").read_bytes() == source.read_bytes()
    assert not (tmp_path / "copy/sub/a b.jpg").is_symlink()
    assert (tmp_path / "link/sub/a b.jpg").readlink() == source.resolve()


def test_file_names_will_do_where_only_one_has_it(tmp_path: Path) -> None:
    inner = photo(tmp_path / "in/sub/a.jpg")
    found = find_photo_files(str(inner), ["other/a.jpg"], [(24, 32)])
    assert (found[0].name, found[0].path) == ("other/a.jpg", inner)
    photo(tmp_path / "in/top/a.jpg")
    with pytest.raises(DataError, match=r"hold the scene's 'other/a.jpg', got 2 of that name"):
        find_photo_files(str(tmp_path / "in/*/a.jpg"), ["other/a.jpg"], [(24, 32)])


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("b.jpg", (24, 32), "hold the scene's 'b.jpg', got none of that name"),
        ("a.jpg", (32, 24), "be 24×32 pixels, as when the scene was reconstructed, got 32×24"),
        ("text.jpg", (24, 32), "be a readable picture"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, name: str, size: tuple[int, int], message: str
) -> None:
    photo(tmp_path / "in/a.jpg")
    (tmp_path / "in/text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=message):
        find_photo_files(str(tmp_path / "in"), [name], [size])


def test_frames_of_a_video(tmp_path: Path) -> None:
    """At the size they are shown: pixels twice as wide as high, the camera held upright."""
    pytest.importorskip("av", reason="PyAV is not installed")
    from tests.io.test_video import write_video

    settings = {"aspect": Fraction(2), "rotation": 90}
    video = str(write_video(tmp_path / "walk.mp4", 12, **settings))
    read = read_video(video, long_side=56, frames=3)
    found = find_photo_files(video, read.names, read.original_sizes)
    put_photos(found, tmp_path / "images", link=True)
    assert [photo.name for photo in found] == [f"{name}.jpg" for name in read.names]
    for photo, seen in zip(found, read.photos, strict=True):
        with Image.open(tmp_path / "images" / photo.name) as image:
            assert image.size == seen.original_size[::-1]
            small = np.asarray(image.resize(seen.size[::-1], Image.Resampling.BOX), np.float32)
        difference = np.abs(small - seen.image.permute(1, 2, 0).numpy())
        assert np.median(difference) < 4  # of 255: one frame on is 10 brighter
    saved = find_photo_files(str(tmp_path / "images"), read.names, read.original_sizes)
    assert [photo.name for photo in saved] == [photo.name for photo in found]


def test_what_a_video_does_not_hold_is_named(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    from tests.io.test_video import write_video

    video = str(write_video(tmp_path / "walk.mp4", 5))
    with pytest.raises(DataError, match=r"--photos .* hold the scene's 'a.jpg', got a video"):
        find_photo_files(video, ["a.jpg"], [(48, 64)])
    (tmp_path / "images").mkdir()
    for number, size, message in (
        (7, (48, 64), "hold the scene's frame 7, got fewer frames"),
        (3, (64, 48), "be 48×64 pixels, as when the scene was reconstructed, got 64×48"),
    ):
        found = find_photo_files(video, [f"frame_{number:06d}"], [size])
        with pytest.raises(DataError, match=message):
            put_photos(found, tmp_path / "images", link=False)


def test_a_full_disk_is_no_fault_of_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png")
    found = find_photo_files(str(tmp_path / "in"), ["a.png"], [(24, 32)])
    for number, named in ((errno.ENOSPC, False), (errno.EACCES, True)):

        def fail(source: Path, target: Path, number: int = number) -> None:
            raise OSError(number, "why", str(source), None, str(target))

        monkeypatch.setattr(shutil, "copyfile", fail)
        with pytest.raises(OSError, match="why") as error:
            put_photos(found, tmp_path / "out", link=False)
        assert (error.value.filename is not None) is named
