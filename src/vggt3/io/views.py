"""The one door for photos and videos."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vggt3 import checks
from vggt3.io import photos as photo_files
from vggt3.io.photo_set import PhotoSet, Progress
from vggt3.io.photos import read_photos
from vggt3.io.resize import model_size
from vggt3.io.sources import Source, is_video, names_video
from vggt3.io.video import read_video
from vggt3.types import PATCH


def peek_sizes(source: Source, long_side: int) -> list[tuple[int, int]]:
    """(height, width) of the views to come, before a pixel is read; a video counts as one.

    Files that do not open are left out: reading will name them.
    """
    if names_video(source):
        return [model_size((9, 16), long_side)]
    return photo_files.peek(source, long_side).sizes


def read_views(
    source: Source,
    *,
    long_side: int,
    every: float | None = None,
    frames: int | None = None,
    patch: int = PATCH,
    strict: bool = False,
    progress: Progress | None = None,
) -> PhotoSet:
    """Read a video (:func:`read_video`) or photos (:func:`read_photos`), whichever is named."""
    entries: Sequence[str | os.PathLike[str]]
    entries = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    videos = [entry for entry in entries if is_video(entry)]
    if videos:
        checks.require(
            len(entries) == 1,
            "photos",
            "be one video or only photos",
            f"'{videos[0]}' and {len(entries) - 1} more",
        )
        return read_video(
            os.fspath(videos[0]),
            long_side=long_side,
            every=every,
            frames=frames,
            patch=patch,
            strict=strict,
            progress=progress,
        )
    for flag, value in (("--every", every), ("--frames", frames)):
        checks.require(value is None, flag, "be given with a video", "photos")
    return read_photos(source, long_side=long_side, patch=patch, strict=strict, progress=progress)
