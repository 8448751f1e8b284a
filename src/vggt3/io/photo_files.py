"""The photo files of a scene: found again by name, and put beside what is exported."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

from PIL import Image, UnidentifiedImageError

from vggt3 import checks
from vggt3.io.sources import (
    PHOTO_EXTENSIONS,
    existing,
    find_photos,
    is_video,
    relative_names,
    unusable,
)
from vggt3.io.video import frame_name, video_frames
from vggt3.pixels import orientation_of, to_rgb, upright, upright_size

_QUALITY = 95
"""Of a JPEG that had to be written anew."""


class PhotoFile(NamedTuple):
    """A photo of a scene on disk."""

    name: str
    """Where it is put, relative: the scene's name for it, with the file's ending if that has
    none."""
    path: Path
    """The photo, or the video that it is a frame of."""
    size: tuple[int, int]
    """(height, width) in pixels, upright."""
    orientation: int = 1
    """EXIF, 1 to 8; 1 is upright."""
    frame: int | None = None
    """Its place in the video, counted from 0."""


def find_photo_files(
    source: str,
    names: Sequence[str],  # V
    sizes: Sequence[tuple[int, int]],  # V times (height, width), upright
) -> list[PhotoFile]:
    """The V photos of a scene among those that ``source`` names, checked by their headers.

    A photo is found by the scene's name for it, else by its file name alone where only one has
    it; frames of a video by their places in it. DataError names the first that is missing or has
    another size.
    """
    wanted = list(zip(names, sizes, strict=True))
    if is_video(source):
        video = existing(source, "--photos")
        return [_frame(name, video, size) for name, size in wanted]
    paths = find_photos(source)
    by_name = dict(zip(relative_names(paths), paths, strict=True))
    return [_checked(name, _named(name, by_name, source), size) for name, size in wanted]


def put_photos(photos: Sequence[PhotoFile], folder: Path, link: bool) -> None:
    """Put each photo under its name below ``folder``: a copy, or with ``link`` a link.

    One that lies on its side is written upright, and a video's frame as a JPEG, link or not:
    cameras belong to upright photos, and few readers of COLMAP and nerfstudio data turn them.
    """
    frames = {photo.frame: photo for photo in photos if photo.frame is not None}
    for photo in photos:
        target = folder / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if photo.frame is not None:
            continue
        if photo.orientation != 1:
            _put_upright(photo.path, target)
        elif link:
            target.symlink_to(os.path.realpath(photo.path))
        else:
            _copy(photo.path, target)
    if frames:
        _put_frames(photos[0].path, frames, folder)


def _copy(path: Path, target: Path) -> None:
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        # It names the photo, which is well: nameless, whoever writes the folder names that.
        raise OSError(error.errno, error.strerror) from error


def _put_upright(path: Path, target: Path) -> None:
    with Image.open(path) as image:
        form, profile = image.format, image.info.get("icc_profile")
        image.load()
        profile = profile if image.mode == "RGB" else None
        # Asked anew: a TIFF turns itself upright while loading.
        turned = upright(to_rgb(image), orientation_of(image))
    turned.save(target, format=form, quality=_QUALITY, icc_profile=profile)


def _put_frames(video: Path, frames: Mapping[int, PhotoFile], folder: Path) -> None:
    left = dict(frames)
    for number, image in video_frames(video, frames):
        photo = left.pop(number)
        if (image.height, image.width) != photo.size:
            _fail_size(f"frame {number} of '{video}'", photo.size, (image.height, image.width))
        image.save(folder / photo.name, quality=_QUALITY)
    if left:
        wanted = f"hold the scene's frame {min(left)}"
        checks.fail(f"video '{video}'", wanted, "fewer frames", error=checks.DataError)


def _frame(name: str, video: Path, size: tuple[int, int]) -> PhotoFile:
    digits = name.removeprefix("frame_")
    number = int(digits) if digits.isascii() and digits.isdecimal() else -1
    if number < 0 or frame_name(number) != name:
        wanted = f"hold the scene's '{name}'"
        checks.fail(f"--photos '{video}'", wanted, "a video", error=checks.DataError)
    return PhotoFile(f"{name}.jpg", video, size, frame=number)


def _named(name: str, by_name: Mapping[str, Path], source: str) -> Path:
    if name in by_name:
        return by_name[name]
    last = PurePosixPath(name).name
    alike = [path for path in by_name.values() if last in (path.name, _bare(path.name))]
    if len(alike) != 1:
        got = "none of that name" if not alike else f"{len(alike)} of that name"
        wanted = f"hold the scene's '{name}'"
        checks.fail(f"--photos '{source}'", wanted, got, error=checks.DataError)
    return alike[0]


def _bare(name: str) -> str:
    """The name of a picture without its ending: a video's frames are called so."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot + ending.lower() in PHOTO_EXTENSIONS else name


def _checked(name: str, path: Path, size: tuple[int, int]) -> PhotoFile:
    why = unusable(path)
    told = "be a readable picture"
    checks.require(why is None, f"photo '{path}'", told, why, error=checks.DataError)
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            orientation = orientation_of(image)
            found = upright_size(image)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        checks.fail(f"photo '{path}'", told, error, error=checks.DataError)
    if found != tuple(size):
        _fail_size(f"photo '{path}'", size, found)
    ending = "" if _bare(name) != name else path.suffix
    return PhotoFile(name + ending, path, size, orientation)


def _fail_size(what: str, size: tuple[int, int], found: tuple[int, int]) -> NoReturn:
    checks.fail(
        what,
        f"be {size[1]}×{size[0]} pixels, as when the scene was reconstructed",
        f"{found[1]}×{found[0]}",
        error=checks.DataError,
    )
