"""The losses of JPEG compression (ITU-T T.81, as libjpeg sets it up), on any device.

Colour at half the resolution, 8 × 8 cosine transforms, rounding to Annex K's tables. What
remains is written to no bits, only looked at.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def compressed(
    images: Tensor,  # [..., 3, H, W] RGB in [0, 1]
    quality: Tensor,  # [...] 1 to 100
) -> Tensor:
    """The images as JPEG files of these qualities show them, [..., 3, H, W] in [0, 1]."""
    height, width = images.shape[-2:]
    flat = images.reshape(-1, 3, height, width).float()
    margin = (0, -width % (2 * BLOCK), 0, -height % (2 * BLOCK))
    red, green, blue = functional.pad((flat * 255).round(), margin, mode="replicate").unbind(1)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    tint = torch.stack([(blue - light) / 1.772, (red - light) / 1.402], dim=1)
    tables = _tables(images.device)
    scale = _scale(quality.reshape(-1).float())[:, None, None]
    steps = [((table * scale + 50) / 100).floor().clamp(1, 255) for table in tables[:2]]
    light = _rounded(light[:, None] - 128, steps[0], tables[2]) + 128
    tint = _rounded(functional.avg_pool2d(tint, 2), steps[1], tables[2])
    tint = functional.interpolate(tint, scale_factor=2, mode="bilinear", align_corners=False)
    blueness, redness = tint[:, :1], tint[:, 1:]
    red, blue = light + 1.402 * redness, light + 1.772 * blueness
    green = (light - 0.299 * red - 0.114 * blue) / 0.587
    shown = torch.cat([red, green, blue], dim=1)[..., :height, :width]
    return (shown.round().clamp(0, 255) / 255).reshape(images.shape)


def _scale(quality: Tensor) -> Tensor:
    """libjpeg's percentage of the tables."""
    quality = quality.clamp(1, 100)
    return torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).floor()


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two tables, and the cosine transform [frequency, place]: three of [8, 8]."""
    cosines = [
        [
            math.sqrt((1 if frequency == 0 else 2) / BLOCK)
            * math.cos((2 * place + 1) * frequency * math.pi / (2 * BLOCK))
            for place in range(BLOCK)
        ]
        for frequency in range(BLOCK)
    ]
    made = [torch.tensor(rows, dtype=torch.float32) for rows in (LUMINANCE, CHROMINANCE, cosines)]
    return made[0].to(device), made[1].to(device), made[2].to(device)


def _rounded(
    plane: Tensor,  # [N, C, H, W] levels, sides in whole blocks
    steps: Tensor,  # [N, 8, 8]
    cosines: Tensor,  # [8, 8]
) -> Tensor:
    """The plane with each block's frequencies rounded to whole steps."""
    count, channels, height, width = plane.shape
    shape = (count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = plane.reshape(shape).transpose(3, 4)  # [N, C, h, w, 8, 8]
    steps = steps[:, None, None, None]
    kept = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ kept @ cosines).transpose(3, 4).reshape(plane.shape)
