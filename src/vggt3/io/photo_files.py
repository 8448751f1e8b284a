"""The photo files of a scene: found again by name, and put beside what is exported."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from vggt3 import checks
from vggt3.io.pixels import orientation_of, swaps_sides, to_rgb, upright
from vggt3.io.sources import find_photos, is_video, relative_names

_QUALITY = 95
"""Of a JPEG that had to be turned upright."""


class PhotoFile(NamedTuple):
    """A photo of a scene on disk."""

    name: str
    """As the scene calls it."""
    path: Path
    orientation: int
    """EXIF, 1 to 8; 1 is upright."""


def find_photo_files(
    source: str,
    names: Sequence[str],  # V
    sizes: Sequence[tuple[int, int]],  # V times (height, width), upright
) -> list[PhotoFile]:
    """The V photos of a scene among those that ``source`` names, checked by their headers.

    A photo is found by the scene's name for it, else by its file name alone where only one has
    it. DataError names the first that is missing or has another size.
    """
    if is_video(source):
        got = f"the video '{source}' (save its frames under the names in cameras.json)"
        checks.fail("--photos", "name photos", got)
    paths = find_photos(source)
    by_name = dict(zip(relative_names(paths), paths, strict=True))
    return [
        _checked(name, _named(name, by_name, source), size)
        for name, size in zip(names, sizes, strict=True)
    ]


def put_photo(photo: PhotoFile, target: Path, link: bool) -> None:
    """Copy ``photo`` to ``target``, or link to it; one that lies on its side is written upright.

    Cameras belong to upright photos, and few readers of COLMAP and nerfstudio data turn them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if photo.orientation != 1:
        with Image.open(photo.path) as image:
            form, profile = image.format, image.info.get("icc_profile")
            image.load()
            profile = profile if image.mode == "RGB" else None
            # Asked anew: a TIFF turns itself upright while loading.
            turned = upright(to_rgb(image), orientation_of(image))
        turned.save(target, format=form, quality=_QUALITY, icc_profile=profile)
    elif link:
        target.symlink_to(os.path.realpath(photo.path))
    else:
        shutil.copyfile(photo.path, target)


def _named(name: str, by_name: Mapping[str, Path], source: str) -> Path:
    if name in by_name:
        return by_name[name]
    last = PurePosixPath(name).name
    alike = [path for path in by_name.values() if path.name == last]
    if len(alike) != 1:
        got = "none of that name" if not alike else f"{len(alike)} of that name"
        checks.fail(
            f"--photos '{source}'", f"hold the scene's '{name}'", got, error=checks.DataError
        )
    return alike[0]


def _checked(name: str, path: Path, wanted: tuple[int, int]) -> PhotoFile:
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            orientation = orientation_of(image)
            if image.format == "TIFF" and orientation != 1:
                image.load()  # It turns itself upright, the tag with it.
            size = (image.height, image.width)
            turned = size[::-1] if swaps_sides(orientation_of(image)) else size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        checks.fail(f"photo '{path}'", "be a readable picture", error, error=checks.DataError)
    checks.require(
        turned == tuple(wanted),
        f"photo '{path}'",
        f"be {wanted[1]}×{wanted[0]} pixels, as when the scene was reconstructed",
        f"{turned[1]}×{turned[0]}",
        error=checks.DataError,
    )
    return PhotoFile(name, path, orientation)
