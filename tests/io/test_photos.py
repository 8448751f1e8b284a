"""Reading photos: every mode, every orientation, every kind of damage."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggt3.checks import DataError
from vggt3.io import photos as reading
from vggt3.io import read_photos


def gradient(height: int = 56, width: int = 80) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return Image.fromarray(np.stack([red, green, 128 + 0 * x], axis=-1).astype(np.uint8))


def one(path: Path, long_side: int = 84) -> torch.Tensor:
    return read_photos(path, long_side=long_side, strict=True).photos[0].image


def test_a_photo(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png")
    found = read_photos(tmp_path, long_side=84)
    photo = found.photos[0]
    assert (photo.name, photo.original_size, photo.size) == ("a.png", (56, 80), (56, 84))
    assert photo.image.dtype == torch.uint8 and photo.image.shape == (3, 56, 84)
    assert photo.image.is_contiguous()
    assert (len(found), found.skipped, found.skipped_line()) == (1, (), None)
    red = photo.image[0].float().mean(0)
    assert red[0] < 10 and red[-1] > 245 and (red.diff() >= 0).all()


def test_sizes_live_side_by_side_in_order(tmp_path: Path) -> None:
    for number, size in enumerate([(80, 56), (56, 80), (80, 56), (100, 100)] * 3):
        Image.new("RGB", size, (number * 20, 0, 0)).save(tmp_path / f"p{number}.png")
    calls: list[tuple[int, int]] = []
    found = read_photos(tmp_path, long_side=84, progress=lambda *c: calls.append(c))
    assert found.names == tuple(f"p{n}.png" for n in range(12))
    assert [int(p.image[0, 0, 0]) for p in found.photos] == [20 * n for n in range(12)]
    assert calls == [(n, 12) for n in range(1, 13)]
    groups = found.views().groups
    assert [g.size for g in groups] == [(56, 84), (84, 56), (84, 84)]
    assert groups[0].ids == (0, 2, 4, 6, 8, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_obeyed(tmp_path: Path, orientation: int, kind: str) -> None:
    # The inverse of what a viewer does for this orientation, by the standard's own words:
    # which corner of the scene the file's first pixel shows, and whether rows are columns.
    upright = np.asarray(gradient())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    options = {"quality": 95} if kind == "jpg" else {"lossless": True} if kind == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    photo = read_photos(path, long_side=84, strict=True).photos[0]
    assert (photo.original_size, photo.size) == ((56, 80), (56, 84))
    assert reading.peek(path, 84).sizes == [(56, 84)]
    Image.fromarray(upright).save(tmp_path / "plain.png")
    difference = photo.image.float() - one(tmp_path / "plain.png").float()
    assert difference.abs().mean() < 3


def test_deep_grey_photos_of_a_set_are_scaled_alike(tmp_path: Path) -> None:
    """Two frames of a 12-bit camera, of which one happens to reach no bit above the tenth."""
    for name, brightest in (("a", 900), ("b", 4000)):
        values = np.full((56, 84), 600, dtype=np.uint16)
        values[0, 0] = brightest
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    gradient().save(tmp_path / "c.png")
    found = read_photos(tmp_path, long_side=84, strict=True).photos
    dark, bright = (int(photo.image[0, 28, 42]) for photo in found[:2])
    assert dark == bright == round(600 / 4095 * 255)
    alone = read_photos(tmp_path / "a.png", long_side=84, strict=True).photos[0]
    assert int(alone.image[0, 28, 42]) == round(600 / 1023 * 255)
    first = reading.decode_photos(
        [tmp_path / "a.png"], ["a"], 84, deepest=reading.deepest_of(sorted(tmp_path.iterdir()))
    )
    assert torch.equal(first.photos[0].image, found[0].image), "as processes that share a scene do"


def test_a_broken_exif_block_costs_nothing(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xff\x00\x09")
    assert one(tmp_path / "a.jpg").shape == (3, 56, 84)


def flat(mode: str) -> tuple[Image.Image, tuple[int, int, int]]:
    """An image of one colour and the RGB that it should become."""
    size = (40, 30)
    if mode == "I;16":
        return Image.fromarray(np.full((30, 40), 2**15, np.uint16)), (128, 128, 128)
    if mode == "I;16 of 12 bits":
        return Image.fromarray(np.full((30, 40), 2**11, np.uint16)), (128, 128, 128)
    if mode == "F in 0..1":
        return Image.fromarray(np.full((30, 40), 0.5, np.float32)), (128, 128, 128)
    if mode == "I":
        return Image.fromarray(np.full((30, 40), 200, np.int32)), (200, 200, 200)
    if mode == "P with transparency":
        image = Image.new("P", size, 1)
        image.putpalette([0, 0, 0, 10, 200, 30])
        image.info["transparency"] = 0
        image.paste(0, (0, 0, 40, 30))
        return image, (255, 255, 255)
    colours: dict[str, tuple[object, tuple[int, int, int]]] = {
        "1": (1, (255, 255, 255)),
        "L": (77, (77, 77, 77)),
        "LA": ((0, 128), (127, 127, 127)),
        "RGB": ((10, 200, 30), (10, 200, 30)),
        "RGBA": ((255, 0, 0, 0), (255, 255, 255)),
        "CMYK": ((0, 255, 255, 0), (255, 0, 0)),
        "YCbCr": ((76, 85, 255), (254, 0, 0)),
        "LAB": ((255, 128, 128), (255, 255, 255)),
        "HSV": ((85, 255, 255), (0, 255, 0)),
        "La": ((0, 0), (255, 255, 255)),
        "RGBa": ((0, 0, 0, 0), (255, 255, 255)),
    }
    colour, expected = colours[mode]
    if mode in ("La", "RGBa"):
        straight = Image.new("LA" if mode == "La" else "RGBA", size, 0)
        return straight.convert(mode), expected
    return Image.new(mode, size, colour), expected  # type: ignore[arg-type]


MODES = ["1", "L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16"]
MODES += ["I;16 of 12 bits", "F in 0..1", "P with transparency"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode: str) -> None:
    image, expected = flat(mode)
    rgb = reading.to_rgb(image)
    assert rgb.mode == "RGB"
    assert np.abs(np.asarray(rgb).astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("mode", "file"),
    [
        ("1", "a.png"),
        ("LA", "a.png"),
        ("RGBA", "a.webp"),
        ("P with transparency", "a.png"),
        ("P with transparency", "a.gif"),
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"),
        ("YCbCr", "a.tif"),
        ("LAB", "a.tif"),
        ("I;16", "a.png"),
        ("I;16", "a.tif"),
        ("I", "a.tif"),
        ("F in 0..1", "a.tif"),
        ("L", "a.jp2"),
        ("RGB", "a.bmp"),
    ],
)
def test_modes_from_files(tmp_path: Path, mode: str, file: str) -> None:
    image, expected = flat(mode)
    image.save(tmp_path / file)
    pixels = one(tmp_path / file).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(pixels - expected).max() <= 3


def test_grey_that_fits_no_depth_is_stretched(tmp_path: Path) -> None:
    values = np.linspace(-3, 7, 40 * 30, dtype=np.float32).reshape(30, 40)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    pixels = one(tmp_path / "a.tif")
    assert pixels.min() < 5 and pixels.max() > 250


def test_a_panorama_is_stretched_and_not_refused(tmp_path: Path) -> None:
    Image.new("RGB", (10_000, 20), "red").save(tmp_path / "a.png")
    photo = read_photos(tmp_path, long_side=518, strict=True).photos[0]
    assert (photo.original_size, photo.size) == ((20, 10_000), (14, 518))


def test_one_photo_is_enough(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.jpg")
    assert len(read_photos(tmp_path / "a.jpg", long_side=84)) == 1


def damaged(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and what must be said about each."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(
        buffer, "JPEG"
    )
    whole = buffer.getvalue()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "head.jpg").write_bytes(whole[:30])
    buffer = io.BytesIO()
    gradient().save(buffer, "PNG")
    (folder / "cut.png").write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    (folder / "text.jpg").write_text("Dear diary, today I took photos. " * 20)
    (folder / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (3, 3)).save(folder / "tiny.png")
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + size
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    header += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header)
    return {
        "cut.jpg": "truncated",
        "head.jpg": "",
        "cut.png": "truncated",
        "text.jpg": "not a picture",
        "empty.jpg": "empty file",
        "tiny.png": "3×3 pixels, less than 14 on a side",
        "bomb.png": "more than 178 megapixels, a decompression bomb?",
    }


def test_damaged_files_are_skipped_and_named(tmp_path: Path) -> None:
    reasons = damaged(tmp_path)
    gradient().save(tmp_path / "good.jpg")
    found = read_photos(tmp_path, long_side=84)
    assert found.names == ("good.jpg",)
    told = {path.name: why for path, why in found.skipped}
    assert told.keys() == reasons.keys()
    for name, why in reasons.items():
        assert why in told[name], told[name]
    line = found.skipped_line()
    assert line is not None and line.startswith("skipped 7 files: ") and "\n" not in line


ODD = {"a.jpg": "a folder", "b.jpg": "a link to nothing", "c.jpg": "no regular file"}


def odd(folder: Path) -> None:
    """Entries of a folder that are named like photos, and are no files."""
    (folder / "a.jpg").mkdir()
    (folder / "b.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "c.jpg")


def test_what_is_no_file_is_skipped_and_named(tmp_path: Path) -> None:
    odd(tmp_path)
    gradient().save(tmp_path / "d.jpg")
    found = read_photos(tmp_path, long_side=84)
    assert found.names == ("d.jpg",)
    told = {path.name: why for path, why in found.skipped}
    assert told.keys() == ODD.keys()
    assert all(told[name].startswith(why) for name, why in ODD.items()), told
    with pytest.raises(DataError, match=r"a\.jpg' must be usable, got a folder"):
        read_photos(tmp_path, long_side=84, strict=True)


def test_headers_tell_what_reading_will_leave_out(tmp_path: Path) -> None:
    reasons = damaged(tmp_path)
    odd(tmp_path)
    gradient().save(tmp_path / "good.jpg")
    found = reading.peek(tmp_path, 84)
    assert (56, 84) in found.sizes
    told = {path.name: why for path, why in found.skipped}
    known = {**reasons, **ODD}
    assert told.keys() >= ODD.keys() | {"text.jpg", "empty.jpg", "tiny.png", "bomb.png"}
    assert all(why.startswith(known[name]) for name, why in told.items()), told
    assert len(found.sizes) + len(found.skipped) == 11
    with pytest.raises(DataError, match=r"a\.jpg' must be usable, got a folder"):
        reading.peek(tmp_path, 84, strict=True)


@pytest.mark.parametrize("name", ["cut.jpg", "text.jpg", "empty.jpg", "tiny.png", "bomb.png"])
def test_strict_stops_at_the_first(tmp_path: Path, name: str) -> None:
    why = damaged(tmp_path)[name]
    with pytest.raises(DataError, match=f"photo '.*{name}' must be usable, got .*") as caught:
        read_photos([tmp_path / name], long_side=84, strict=True)
    assert why in str(caught.value) and caught.value.exit_code == 1


def test_no_readable_photo_lists_each_with_its_reason(tmp_path: Path) -> None:
    reasons = damaged(tmp_path)
    with pytest.raises(DataError, match="at least one readable photo, got 7 unusable") as caught:
        read_photos(tmp_path, long_side=84)
    for name, why in reasons.items():
        assert name in str(caught.value) and why in str(caught.value)


def test_a_long_list_of_reasons_is_cut(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.jpg").write_text("no")
    with pytest.raises(DataError, match=r"got 50 unusable: .*; and 30 more$"):
        read_photos(tmp_path, long_side=84)


def test_large_photos_below_the_bomb_limit_are_read_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # Pillow warns above, fails above twice.
    gradient().save(tmp_path / "a.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_photos(tmp_path, long_side=84)) == 1


def test_a_jpeg_decoded_at_a_fraction_is_the_photo(tmp_path: Path) -> None:
    gradient(1203, 1605).save(tmp_path / "a.jpg", quality=95)
    gradient(1203, 1605).save(tmp_path / "a.png")
    difference = one(tmp_path / "a.jpg").float() - one(tmp_path / "a.png").float()
    assert difference.abs().mean() < 1 and difference.abs().max() < 8


def test_a_bug_of_ours_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(reading, "resized", broken)
    gradient().save(tmp_path / "a.png")
    with pytest.raises(RuntimeError, match="ours"):
        read_photos(tmp_path, long_side=84)


def test_real_photos_of_ten_sizes(captures_dir: Path) -> None:
    found = read_photos(captures_dir / "sacre_coeur" / "images", long_side=224)
    assert len(found) == 10 and not found.skipped
    assert len(found.views().groups) > 1
    assert all(max(size) == 224 for size in found.sizes)
