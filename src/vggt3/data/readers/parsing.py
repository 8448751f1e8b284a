"""What files of data sets hold: numbers in text, depth in PNGs, poses; every error names a file."""

from __future__ import annotations

import re
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vggt3 import checks
from vggt3.geometry.camera import invert_pose
from vggt3.geometry.rotation import nearest_rotation

OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
"""Camera axes x right, y up, z backward ↔ OpenCV's x right, y down, z forward."""
CROOKED = 0.05
"""A rotation's RᵀR may differ from the identity by less."""
SHAPES_DIFFER = 0.02
"""Relative difference of two images' proportions that is more than rounding."""
DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What NumPy raises of files that are none of its own, or that are no longer whole."""


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        checks.fail(str(path), "be a readable text file", reason, error=checks.DataError)


def numbers(path: Path, text: str | None = None) -> list[float]:
    """All numbers of a text, separated by blanks or commas."""
    words = re.split(r"[\s,]+", (read_text(path) if text is None else text).strip())
    try:
        return [float(word) for word in words if word]
    except ValueError as error:
        checks.fail(str(path), "hold numbers only", error, error=checks.DataError)


def positive(value: object, what: str) -> float:
    """A number of a listing, where only one above 0 has a meaning.

    Raises:
        DataError: another one, or no number.
    """
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
    if 0 < number <= sys.float_info.max:
        return float(number)
    checks.fail(what, "be a number above 0", repr(value), error=checks.DataError)


def matrix(path: Path, rows: int, columns: int, values: Sequence[float] | None = None) -> Tensor:
    """A float64 matrix in a text file; its numbers, row by row, if they were read already."""
    found = numbers(path) if values is None else list(values)
    checks.require(
        len(found) == rows * columns,
        str(path),
        f"hold a {rows}×{columns} matrix",
        f"{len(found)} numbers",
        error=checks.DataError,
    )
    return torch.tensor(found, dtype=torch.float64).reshape(rows, columns)


def pose(
    transform: Tensor,  # [3 or 4, 4]
    what: str,
    *,
    inverted: bool = False,
    opengl: bool = False,
) -> Tensor:
    """camera_from_world [3, 4] float64 in OpenCV axes, of a pose as files have it.

    Args:
        transform: camera-from-world, or world-from-camera where ``inverted``.
        what: named in errors.
        inverted: see there.
        opengl: the camera's axes are x right, y up, z backward.

    Raises:
        DataError: not finite, or no rotation.
    """
    found = transform[:3].double()
    finite = bool(found.isfinite().all())
    got = "nan or infinity"
    checks.require(finite, f"pose in {what}", "be finite", got, error=checks.DataError)
    turn = found[:, :3]
    off = float((turn.T @ turn - torch.eye(3).double()).abs().max())
    upright = off < CROOKED and float(torch.linalg.det(turn)) > 0
    told = f"one that is {off:.2g} off" if off >= CROOKED else "a mirror image"
    checks.require(upright, f"pose in {what}", "hold a rotation", told, error=checks.DataError)
    if off > 1e-9:  # files have few digits; the nearest rotation
        found = torch.cat([nearest_rotation(turn), found[:, 3:]], dim=1)
    if inverted:
        found = invert_pose(found)
    return OPENGL @ found if opengl else found


def pose_file(path: Path, *, inverted: bool = False, opengl: bool = False) -> Tensor:
    """:func:`pose` of a text file that holds a 4×4 matrix."""
    return pose(matrix(path, 4, 4), str(path), inverted=inverted, opengl=opengl)


def intrinsics(
    found: Tensor,  # [3, 3] pixels
    what: str,
) -> Tensor:
    """[3, 3] float64 of intrinsics as files have them.

    Raises:
        DataError: not finite, or a focal length that is not above 0.
    """
    finite, got = bool(found.isfinite().all()), "nan or infinity"
    checks.require(finite, f"intrinsics in {what}", "be finite", got, error=checks.DataError)
    fx, fy = float(found[0, 0]), float(found[1, 1])
    name, got = f"fx and fy in {what}", f"{fx:g} and {fy:g}"
    checks.require(min(fx, fy) > 0, name, "be positive", got, error=checks.DataError)
    return found.double()


def pinhole_matrix(
    focal: tuple[float, float], centre: tuple[float, float], what: str, offset: float = 0.0
) -> Tensor:
    """:func:`intrinsics` of numbers; ``offset`` is 0.5 where files have pixel (0, 0)'s centre at
    (0, 0)."""
    (fx, fy), (cx, cy) = focal, centre
    rows = [[fx, 0, cx + offset], [0, fy, cy + offset], [0, 0, 1]]
    return intrinsics(torch.tensor(rows, dtype=torch.float64), what)


def pinhole_of(
    stored: Tensor,  # [3 or 4, 3 or 4], its skew left out
    what: str,
    offset: float,
) -> Tensor:
    """:func:`pinhole_matrix` of intrinsics that are stored as a matrix."""
    focal = (float(stored[0, 0]), float(stored[1, 1]))
    return pinhole_matrix(focal, (float(stored[0, 2]), float(stored[1, 2])), what, offset)


@dataclass(frozen=True)
class KnownCamera:
    """The intrinsics of a data set whose files do not say them."""

    focal: tuple[float, float]
    """fx, fy in pixels."""
    centre: tuple[float, float]
    """cx, cy in pixels."""
    size: tuple[int, int]
    """(height, width) of the images that they belong to."""
    offset: float = 0.0
    """0.5 where ``centre`` counts from the top-left pixel's centre, 0 from its corner."""

    def at(self, image: Path) -> Tensor:
        """[3, 3] for an image file, which may have been made smaller or larger.

        Raises:
            DataError: an image of other proportions.
        """
        height, width = size_of(image)
        checks.require(
            same_proportions((height, width), self.size),
            str(image),
            f"have the proportions of {self.size[0]}×{self.size[1]} that its camera is known for",
            f"{height}×{width}",
            error=checks.DataError,
        )
        across, down = width / self.size[1], height / self.size[0]
        zoom = torch.diag(torch.tensor([across, down, 1.0], dtype=torch.float64))
        return zoom @ pinhole_matrix(self.focal, self.centre, str(image), self.offset)


def opened(path: Path) -> Image.Image:
    """An image file.

    Raises:
        DataError: it is none.
    """
    try:
        return Image.open(path)
    except (OSError, UnidentifiedImageError) as error:
        reason = getattr(error, "strerror", None) or "another kind of file"
        checks.fail(str(path), "be a readable image", reason, error=checks.DataError)


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) by the header."""
    with opened(path) as image:
        return image.height, image.width


def read_rgb(path: Path) -> Tensor:
    """[3, H, W] uint8 RGB."""
    return torch.from_numpy(_pixels(path, "RGB")).permute(2, 0, 1).contiguous()


def read_depth(path: Path, per_unit: float, invalid: int = 0, farthest: float = 0.0) -> Tensor:
    """[H, W] float32 of a 16-bit PNG with ``per_unit`` steps a unit.

    The value ``invalid`` and, unless 0, depth beyond ``farthest`` (units) become 0.

    Raises:
        DataError: not one channel of 16 bits: a picture of the depth, which has lost its steps.
    """
    stored = read_16_bits(path, f"{per_unit:g} steps a unit")
    steps = torch.from_numpy(stored.astype(np.float64))
    depth = torch.where(steps == invalid, 0.0, steps / per_unit)
    if farthest:
        depth = torch.where(depth > farthest, 0.0, depth)
    return depth.float()


def read_16_bits(path: Path, meaning: str) -> np.ndarray:
    """[H, W] of a depth map's PNG, whose values mean what ``meaning`` says.

    Raises:
        DataError: see :func:`read_depth`.
    """
    stored = _pixels(path, None)
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    # Pillow opens 16-bit PNGs with 16 or 32 bits, pictures (palettes, masks) with 8 or bool.
    wide = stored.dtype.itemsize > 1
    checks.require(
        channels == 1 and wide,
        str(path),
        f"be a depth map of one channel with 16 bits, {meaning}",
        f"{channels} of {'16' if wide else 'at most 8'} bits",
        error=checks.DataError,
    )
    return stored


def read_mask(path: Path) -> Tensor:
    """[H, W] bool of an image: where it is not black."""
    return torch.from_numpy(_pixels(path, "L")) > 0


def read_array(path: Path, name: str | None = None) -> np.ndarray:
    """The numbers of a NumPy file: those called ``name`` of an .npz, of an .npy if not given.

    Raises:
        DataError: not such a file, a damaged one, or no numbers in it.
    """
    told = "be a NumPy array" if name is None else f"be an .npz file with {name}"
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found as parts:
                found = parts[name] if name in parts.files else None
    except DAMAGED as error:
        checks.fail(str(path), told, checks.reason(error), error=checks.DataError)
    fits = isinstance(found, np.ndarray) and found.dtype.kind in "fiu"
    checks.require(fits, str(path), told, "other things", error=checks.DataError)
    return found


def _pixels(path: Path, mode: str | None) -> np.ndarray:
    with opened(path) as image:
        try:
            return np.array(image if mode is None else image.convert(mode))
        except (OSError, SyntaxError, ValueError) as error:
            checks.fail(str(path), "be a whole image", error, error=checks.DataError)


def same_proportions(one: tuple[int, int], two: tuple[int, int]) -> bool:
    """Whether two images of these (height, width) can show the same, but for rounding."""
    ratio = one[0] * two[1] / (one[1] * two[0])
    return abs(ratio - 1) < SHAPES_DIFFER


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir())


def by_number(paths: Sequence[Path]) -> list[Path]:
    """Files in the order of the last number in their names."""
    return sorted(paths, key=lambda p: (int((re.findall(r"\d+", p.stem) or ["0"])[-1]), p.name))
