"""Any mode that Pillow reads, as upright 8-bit RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""

_ORIENTATION_TAG = 0x0112

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits a pixel that sensors and scanners store in wider integers."""


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels are integers that may have more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;16")


def to_rgb(image: Image.Image, deepest: int = 0) -> Image.Image:
    """``image``, already loaded, as RGB: transparency over white, deep grey scaled to 8 bits.

    Integers are divided by the largest value of the smallest of 8, 10, 12, 14 and 16 bits that
    holds them all, and ``deepest``, the greatest value of a set of photos that are to be scaled
    alike; floats in [0, 1] are taken as such; what fits neither is stretched from its least to its
    greatest value.
    """
    if is_deep(image):
        return _from_grey(_integer_to_unit(np.asarray(image), deepest))
    if image.mode == "F":
        return _from_grey(_float_to_unit(np.asarray(image)))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """``image`` turned and mirrored as an EXIF ``orientation`` of 1 to 8 asks."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or the block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, OverflowError):
        return 1  # The pixels are sound all the same.
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image that has just been opened, as it is when upright."""
    if image.format == "TIFF" and orientation_of(image) != 1:
        image.load()  # It turns itself upright, the tag with it; some versions do before.
    found = (image.height, image.width)
    return found[::-1] if swaps_sides(orientation_of(image)) else found


def swaps_sides(orientation: int) -> bool:
    """Whether an EXIF ``orientation`` exchanges height and width."""
    return orientation >= 5


def _over_white(image: Image.Image) -> Image.Image:
    # Premultiplied and palette modes have no direct way to RGBA.
    between = {"La": "LA", "PA": "RGBA"}.get(image.mode)
    layer = (image.convert(between) if between else image).convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _integer_to_unit(values: NDArray[np.generic], deepest: int) -> NDArray[np.float32]:
    least, most = int(np.min(values)), max(int(np.max(values)), deepest)
    bits = next((b for b in _DEPTHS if most < 2**b), None)
    if least < 0 or bits is None:
        return _stretched(values)
    return values.astype(np.float32) / (2**bits - 1)


def _float_to_unit(values: NDArray[np.generic]) -> NDArray[np.float32]:
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if finite.min() >= 0 and finite.max() <= 1:
        return finite
    return _stretched(finite)


def _stretched(values: NDArray[np.generic]) -> NDArray[np.float32]:
    wide = values.astype(np.float64)
    least, most = wide.min(), wide.max()
    return ((wide - least) / max(most - least, 1e-300)).astype(np.float32)


def _from_grey(unit: NDArray[np.float32]) -> Image.Image:
    grey = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
