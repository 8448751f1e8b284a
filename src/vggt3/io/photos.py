"""Reading photos: decode, turn upright, to RGB, resize; what fails is named, not fatal."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from vggt3 import checks
from vggt3.io.photo_set import Photo, PhotoSet, Progress, reasons
from vggt3.io.resize import SMALLEST_SIDE, checked_long_side, model_size, resized
from vggt3.io.sources import Source, find_photos, relative_names, unusable
from vggt3.pixels import is_deep, orientation_of, swaps_sides, to_rgb, upright, upright_size
from vggt3.types import PATCH

LARGEST_PHOTO = 2 * 89_478_485
"""Pixels (179 megapixels, where Pillow too refuses): more is taken for a decompression bomb."""

SHALLOW = (".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".gif", ".bmp")
"""Endings of files whose grey pixels have 8 bits: no second look is taken at them."""

MOST_THREADS = 16
"""That decode photos side by side."""

_BOMB = f"more than {LARGEST_PHOTO // 1_000_000} megapixels, a decompression bomb?"

_DECODE_ERRORS = (
    # Every Pillow plugin is a parser of its own, and answers damage in its own way.
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_photos(
    source: Source,
    *,
    long_side: int,
    patch: int = PATCH,
    strict: bool = False,
    progress: Progress | None = None,
) -> PhotoSet:
    """Read the photos that ``source`` names (see :func:`~vggt3.io.sources.find_photos`).

    Each becomes upright 8-bit RGB with its longer side ``long_side`` pixels and both sides
    multiples of ``patch``. Files that cannot be used are listed in ``skipped``; with ``strict``
    the first of them raises DataError, and without any readable photo all of them do.
    """
    checked_long_side(long_side, patch)
    paths = find_photos(source)
    names, deepest = relative_names(paths), deepest_of(paths)
    found = decode_photos(
        paths, names, long_side, patch=patch, strict=strict, progress=progress, deepest=deepest
    )
    return checked(found)


def deepest_of(paths: Sequence[Path]) -> int:
    """The greatest value of grey photos of more than 8 bits, by which all of a set are scaled: one
    by one, frames of a 12-bit camera would differ fourfold in brightness. 0 where there is none."""
    most = 0
    with _quietly():
        for path in paths:
            if path.suffix.lower() not in SHALLOW:
                most = max(most, _greatest(path))
    return most


@contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns of what we answer otherwise: photos half as large as LARGEST_PHOTO,
    transparency, damaged EXIF blocks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _greatest(path: Path) -> int:
    try:
        if _never_opened(path) is None:
            with Image.open(path) as image:
                if is_deep(image) and _unfit(*image.size) is None:
                    greatest = int(np.max(np.asarray(image)))
                    return greatest if greatest < 1 << 16 else 0  # more is stretched by itself
    except _DECODE_ERRORS:
        pass  # said where it is read
    return 0


def checked(photos: PhotoSet) -> PhotoSet:
    """The set, unless no photo of it was readable."""
    if not photos.photos:
        checks.fail(
            "photos",
            "hold at least one readable photo",
            f"{len(photos.skipped)} unusable: {reasons(photos.skipped)}",
            error=checks.DataError,
        )
    return photos


def decode_photos(
    paths: Sequence[Path],
    names: Sequence[str],
    long_side: int,
    *,
    patch: int = PATCH,
    strict: bool = False,
    progress: Progress | None = None,
    deepest: int = 0,
) -> PhotoSet:
    """The photos at ``paths`` under ``names``, perhaps none of them readable; ``deepest`` is
    :func:`deepest_of` the whole set."""
    photos: list[Photo] = []
    skipped: list[tuple[Path, str]] = []
    with _quietly():
        prepare = partial(_prepare, long_side=long_side, patch=patch, deepest=deepest)
        outcomes = _decoded(paths, names, prepare)
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, Photo):
                photos.append(outcome)
            elif strict:
                checks.fail(f"photo '{path}'", "be usable", outcome, error=checks.DataError)
            else:
                skipped.append((path, outcome))
            if progress is not None:
                progress(len(photos) + len(skipped), len(paths))
    return PhotoSet(tuple(photos), tuple(skipped))


class Peeked(NamedTuple):
    """What the headers of photos tell."""

    sizes: list[tuple[int, int]]
    """(height, width) in the model of those that open."""
    skipped: list[tuple[Path, str]]
    """Files that cannot be used, each with its reason. Damage behind a header is not seen."""


def peek(source: Source, long_side: int, patch: int = PATCH, *, strict: bool = False) -> Peeked:
    """The photos that ``source`` names, by their headers alone.

    With ``strict`` the first that cannot be used raises DataError.
    """
    found = Peeked([], [])
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        for path in find_photos(source):
            try:
                size = _header(path)
            except _DECODE_ERRORS as error:
                size = _short_reason(error)
            if not isinstance(size, str):
                found.sizes.append(model_size(size, long_side, patch))
            elif strict:
                checks.fail(f"photo '{path}'", "be usable", size, error=checks.DataError)
            else:
                found.skipped.append((path, size))
    return found


def _header(path: Path) -> tuple[int, int] | str:
    """(height, width) of the photo upright, or why it cannot be used; may raise as decoding."""
    why = _never_opened(path)
    if why is not None:
        return why
    with Image.open(path) as image:
        return _unfit(*image.size) or upright_size(image)


def _decoded(
    paths: Sequence[Path], names: Sequence[str], prepare: Callable[[Path, str], Photo | str]
) -> Iterator[Photo | str]:
    """Each photo, or why there is none, in order; decoded in a few threads.

    Pillow releases the interpreter lock while it decodes and resizes.
    """
    threads = min(MOST_THREADS, os.cpu_count() or 1, len(paths))
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        yield from pool.map(prepare, paths, names)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Decoded(NamedTuple):
    """A photo as its file holds it."""

    rgb: Image.Image
    """Perhaps at a fraction of its size, and not yet upright."""
    box: tuple[float, float, float, float] | None
    """Left, top, right, bottom in pixels of ``rgb``: the photo itself; None is all of it."""
    orientation: int
    """EXIF, 1 to 8."""
    size: tuple[int, int]
    """(height, width) in pixels, not yet upright."""


def _prepare(path: Path, name: str, *, long_side: int, patch: int, deepest: int) -> Photo | str:
    try:
        decoded = _decode(path, long_side, patch, deepest)
    except _DECODE_ERRORS as error:
        return _short_reason(error)
    if isinstance(decoded, str):
        return decoded
    small = resized(decoded.rgb, model_size(decoded.size, long_side, patch), decoded.box)
    turned = np.asarray(upright(small, decoded.orientation))  # [h, w, 3]
    # Not torch's copy: each of these threads would bring a team of threads of its own.
    pixels = torch.from_numpy(turned.transpose(2, 0, 1).copy())
    height, width = decoded.size
    size = (width, height) if swaps_sides(decoded.orientation) else (height, width)
    return Photo(name, pixels, size, path)


def _decode(path: Path, long_side: int, patch: int, deepest: int) -> _Decoded | str:
    """The photo, or why it cannot be used; a damaged file raises one of _DECODE_ERRORS."""
    why = _never_opened(path)
    if why is not None:
        return why
    with Image.open(path) as image:
        width, height = image.size
        why = _unfit(width, height)
        if why is not None:
            return why
        # A JPEG can be decoded at a half, a quarter or an eighth; twice the wanted size is kept.
        rows, columns = model_size((height, width), long_side, patch)
        draft = image.draft(None, (2 * columns, 2 * rows))
        image.load()
        if draft is None:
            width, height = image.size  # TIFF turns itself upright only while loading.
        box = None if draft is None else draft[1]
        return _Decoded(to_rgb(image, deepest), box, orientation_of(image), (height, width))


def _never_opened(path: Path) -> str | None:
    """Why a file cannot be a photo, seen from outside; a pipe would never end."""
    return unusable(path) or ("empty file" if path.stat().st_size == 0 else None)


def _unfit(width: int, height: int) -> str | None:
    """Why a picture of so many pixels cannot be used, or None."""
    if width * height > LARGEST_PHOTO:
        return _BOMB
    if min(width, height) < SMALLEST_SIDE:
        return f"{height}×{width} pixels, less than {SMALLEST_SIDE} on a side"
    return None


def _short_reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read"
    if isinstance(error, Image.DecompressionBombError):
        return _BOMB
    if isinstance(error, MemoryError):
        return "does not fit in memory"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"damaged: {error or type(error).__name__}"
