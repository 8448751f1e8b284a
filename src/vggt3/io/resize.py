"""The size at which the model sees a photo."""

from __future__ import annotations

from PIL import Image

from vggt3 import checks
from vggt3.types import PATCH

SMALLEST_SIDE = 14
"""Pixels: a photo with a shorter side shows nothing that a patch could hold."""


def checked_long_side(long_side: int, patch: int = PATCH) -> int:
    """``long_side`` rounded to the nearest multiple of ``patch``; UsageError below one patch."""
    checks.require(long_side >= patch, "--long-side", f"be at least {patch}", long_side)
    return _nearest_multiple(long_side, patch)


def model_size(
    size: tuple[int, int],  # height, width in pixels
    long_side: int,
    patch: int = PATCH,
) -> tuple[int, int]:
    """Height and width for a photo of ``size``: nothing cropped, nothing padded.

    The longer side becomes ``long_side`` rounded to a multiple of ``patch``, the other the
    nearest multiple to its true length, at least one patch (so that a photo more than
    ``long_side / patch`` times as long as it is high is stretched across).
    """
    height, width = size
    long_side = checked_long_side(long_side, patch)
    scale = long_side / max(height, width)
    return (
        max(patch, _nearest_multiple(height * scale, patch)),
        max(patch, _nearest_multiple(width * scale, patch)),
    )


def resized(
    image: Image.Image,
    size: tuple[int, int],  # height, width in pixels
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """``image`` (8-bit RGB) resampled to ``size`` by Lanczos after a box reduction.

    ``box`` (left, top, right, bottom; pixels) is the part of ``image`` that holds the photo:
    a JPEG decoded at a fraction of its size may have a fraction of a pixel too much.
    """
    height, width = size
    # A gap of 3 keeps the box reduction invisible beside plain Lanczos and saves most of the time.
    return image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=3.0)


def _nearest_multiple(length: float, patch: int) -> int:
    # int(x + 0.5) and not round(): halves must not depend on which even number is nearer.
    return int(length / patch + 0.5) * patch
