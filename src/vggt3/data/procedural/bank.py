"""A bank of photos that surfaces can wear: the user's own folder, or drawn ones.

Each is kept with its reductions by two, so that a distant surface shows the photo's mean colours
and not single pixels of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vggt3 import checks

SIDE = 256
"""Pixels a side of the largest level; a power of two."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
LEAST_SIDE = 64
"""A smaller photo would only be a blur on a wall."""


@dataclass(frozen=True)
class Bank:
    """T square photos with all their reductions by two."""

    texels: Tensor
    """[T, S, 3] linear RGB; S = 256² + 128² + … + 1, levels one after another, row-major."""

    def to(self, device: torch.device | str) -> Bank:
        """The same bank on ``device``."""
        return Bank(self.texels.to(device))

    @property
    def count(self) -> int:
        """T."""
        return self.texels.shape[0]


def build(
    photos: Tensor,  # [T, 3, 256, 256] RGB in [0, 1] as displayed
) -> Bank:
    """The bank of these photos."""
    checks.shape_of("photos of the bank", tuple(photos.shape), f"T 3 {SIDE} {SIDE}")
    level = photos.float().pow(2.2)
    levels = []
    while True:
        levels.append(level.flatten(2).transpose(1, 2))
        if level.shape[-1] == 1:
            return Bank(torch.cat(levels, dim=1).contiguous())
        level = torch.nn.functional.avg_pool2d(level, 2)


@dataclass(frozen=True)
class Loaded:
    """A bank made from a folder."""

    bank: Bank
    used: tuple[str, ...]
    """Files in the bank's order."""
    skipped: tuple[tuple[str, str], ...]
    """Files that were left out, and why."""


def load(folder: Path | str) -> Loaded:
    """The photos of a folder and its subfolders, sorted by path, cut to squares.

    A file that cannot be read or is too small is skipped with its reason; a folder without any
    usable photo is a :class:`~vggt3.checks.DataError`.
    """
    folder = Path(folder)
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    photos, used, skipped = [], [], []
    for file in files:
        name = str(file.relative_to(folder))
        try:
            photos.append(_square(file))
            used.append(name)
        except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as e:
            skipped.append((name, str(e)))
    if not photos:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped[:3])
        found = f"{len(files)} image files" + (f" ({reasons})" if reasons else "")
        checks.fail(f"texture folder {folder}", "hold usable photos", found, error=checks.DataError)
    return Loaded(build(torch.stack(photos)), tuple(used), tuple(skipped))


def _square(file: Path) -> Tensor:
    """The middle of a photo, [3, 256, 256] in [0, 1]."""
    with Image.open(file) as opened:
        side = min(opened.size)
        if side < LEAST_SIDE:
            raise ValueError(f"{opened.size[0]}×{opened.size[1]} is less than {LEAST_SIDE} pixels")
        photo = ImageOps.exif_transpose(opened).convert("RGB")
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
    corners = [flat[base + row + column].T for row in rows for column in columns]
    upper = torch.lerp(corners[0], corners[1], x)
    return torch.lerp(upper, torch.lerp(corners[2], corners[3], x), y)


def _mirrored(x: Tensor) -> Tensor:
    wrapped = x - 2 * (x / 2).floor()
    return torch.minimum(wrapped, 2 - wrapped).clamp(0, 1)
