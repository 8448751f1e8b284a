"""A bank of photos that surfaces can wear: the user's own folder, or drawn ones.

Each is kept with its reductions by two, so that a distant surface shows the photo's mean colours
and not single pixels of it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vggt3 import checks
from vggt3.pixels import to_rgb

SIDE = 256
"""Pixels a side of the largest level; a power of two."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
LEAST_SIDE = 64
"""A smaller photo would only be a blur on a wall."""
MOST_NOTES = 20
"""Skipped files that are told one by one."""
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises at damaged files."""
BITS = 10
"""Of a texel's channel, as the square root of its light: half the step of an 8-bit photo."""
STEPS = 2**BITS - 1


@dataclass(frozen=True)
class Bank:
    """T square photos with all their reductions by two, a third of a megabyte each."""

    texels: Tensor
    """[T, S] int32, √(linear RGB) in 10 bits each, red lowest; S = 256² + 128² + … + 1, levels
    one after another, row-major."""

    def to(self, device: torch.device | str) -> Bank:
        """The same bank on ``device``."""
        return Bank(self.texels.to(device))

    @property
    def count(self) -> int:
        """T."""
        return self.texels.shape[0]

    @property
    def digest(self) -> str:
        """SHA-256 of the photos as they are worn, in their order."""
        return hashlib.sha256(self.texels.cpu().numpy().tobytes()).hexdigest()


def build(
    photos: Tensor,  # [T, 3, 256, 256] RGB in [0, 1] as displayed
) -> Bank:
    """The bank of these photos."""
    checks.shape_of("photos of the bank", tuple(photos.shape), f"T 3 {SIDE} {SIDE}")
    return Bank(torch.cat([_packed(photo) for photo in photos]))


def _packed(photo: Tensor) -> Tensor:
    """Texels [1, S] of all levels of one photo [3, 256, 256]."""
    level = photo.float().pow(2.2)
    levels = [level.flatten(1)]
    while level.shape[-1] > 1:
        level = torch.nn.functional.avg_pool2d(level[None], 2)[0]
        levels.append(level.flatten(1))
    red, green, blue = (torch.cat(levels, dim=1).sqrt() * STEPS).round().to(torch.int32)
    return (red | green << BITS | blue << 2 * BITS)[None]


def _linear(texels: Tensor) -> Tensor:
    """RGB [3, N] of packed texels [N]."""
    channels = [texels, texels >> BITS, texels >> 2 * BITS]
    return torch.stack([(c & STEPS).to(torch.float32) for c in channels]).div_(STEPS).square_()


@dataclass(frozen=True)
class Loaded:
    """A bank made from a folder."""

    bank: Bank
    used: tuple[str, ...]
    """Files in the bank's order."""
    skipped: tuple[tuple[str, str], ...]
    """Files that were left out, and why."""

    def notes(self) -> list[str]:
        """What to tell whoever named the folder, a line each."""
        lines = [f"skipped texture {name}: {why}" for name, why in self.skipped[:MOST_NOTES]]
        more = len(self.skipped) - len(lines)
        return [*lines, f"skipped {more} more textures"] if more else lines


def load(folder: Path | str) -> Loaded:
    """The photos of a folder and its subfolders, sorted by path, cut to squares.

    Hidden ones are left out. A file that cannot be read or is too small is skipped with its reason;
    a folder without any usable photo is a :class:`~vggt3.checks.DataError`.
    """
    folder = Path(folder)
    named = f"texture folder {folder}"
    got = "a file" if folder.exists() else "nothing there"
    checks.require(folder.is_dir(), named, "be a folder", got, error=checks.DataError)
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    files = [f for f in files if not any(p.startswith(".") for p in f.relative_to(folder).parts)]
    photos, used, skipped = [], [], []
    for file in files:
        name = str(file.relative_to(folder))
        try:
            photos.append(_packed(_square(file)))
            used.append(name)
        except UNREADABLE as error:
            skipped.append((name, _reason(file, error)))
    if not photos:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped[:3])
        found = f"{len(files)} image files" + (f" ({reasons})" if reasons else "")
        checks.fail(named, "hold usable photos", found, error=checks.DataError)
    return Loaded(Bank(torch.cat(photos)), tuple(used), tuple(skipped))


def _reason(file: Path, error: Exception) -> str:
    """Why a file was skipped, without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "no readable image"
    return str(error).replace(f" '{file}'", "") or type(error).__name__


def _square(file: Path) -> Tensor:
    """The middle of a photo, [3, 256, 256] in [0, 1]."""
    with Image.open(file) as opened:
        side = min(opened.size)
        if side < LEAST_SIDE:
            raise ValueError(f"{opened.size[0]}×{opened.size[1]} is less than {LEAST_SIDE} pixels")
        if opened.mode[0] in "IF":
            raise ValueError(f"no photo, its pixels are {opened.mode}")
        opened.draft("RGB", (2 * SIDE, 2 * SIDE))  # a large JPEG is decoded at a fraction
        photo = to_rgb(ImageOps.exif_transpose(opened))
    photo = ImageOps.fit(photo, (SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255


def sample(
    bank: Bank,
    index: Tensor,  # [N] int64 photo
    u: Tensor,  # [N] in photo widths; repeats mirrored
    v: Tensor,  # [N] in photo heights, downwards
    footprint: Tensor,  # [N] photo sides that a pixel covers
) -> Tensor:
    """Linear RGB [3, N], bilinear in the level whose pixels are nearest to the footprint."""
    level = (footprint * SIDE).clamp(min=1).log2().add_(0.5).floor_()
    level = level.clamp_(0, SIDE.bit_length() - 1)
    side = SIDE * torch.exp2(-level)
    # Levels before this one hold SIDE² · (1 + 1/4 + …) texels.
    start = ((SIDE * SIDE - side * side) * (4.0 / 3.0)).round_()
    whole = int(bank.texels.shape[1])
    x, y = _mirrored(u) * side - 0.5, _mirrored(v) * side - 0.5
    left, top = x.floor(), y.floor()
    x, y = x - left, y - top
    flat = bank.texels.flatten(0, 1)
    base = index * whole + start.to(torch.int64)
    columns = [(left + i).clamp(min=0).minimum(side - 1).to(torch.int64) for i in (0, 1)]
    rows = [
        (top + i).clamp(min=0).minimum(side - 1).to(torch.int64) * side.to(torch.int64)
        for i in (0, 1)
    ]
    corners = [_linear(flat[base + row + column]) for row in rows for column in columns]
    upper = torch.lerp(corners[0], corners[1], x)
    return torch.lerp(upper, torch.lerp(corners[2], corners[3], x), y)


def _mirrored(x: Tensor) -> Tensor:
    wrapped = x - 2 * (x / 2).floor()
    return torch.minimum(wrapped, 2 - wrapped).clamp(0, 1)
