"""From radiance to a photo: exposure, white balance, vignette, blur, noise, display curve."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from vggt3.data.procedural.noise import cell_code, to_unit
from vggt3.data.procedural.scene import SceneParameters


class Column(IntEnum):
    """Columns of ``SceneParameters.photometry``."""

    EXPOSURE = 0  # factor on the automatic exposure
    RED = 1  # white balance gains
    BLUE = 2
    VIGNETTE = 3  # loss of light in the corners
    BLUR = 4  # Gaussian sigma in pixels
    NOISE = 5  # standard deviation at mid grey, of 1
    CONTRAST = 6  # exponent of the display curve
    QUALITY = 7  # of its JPEG file, where ``SceneParameters.jpeg`` says that there is one


WIDTH = 8
"""Q."""
MIDDLE_GREY = 0.22
"""Linear level that the automatic exposure brings a view's mean to."""
BLUR_RADIUS = 2


def develop(
    radiance: Tensor,  # [B, V, 3, H, W]
    scenes: SceneParameters,
) -> Tensor:
    """Photos [B, V, 3, H, W] in [0, 1] as displayed."""
    settings = scenes.photometry[..., None, None, None]  # [B, V, Q, 1, 1, 1]
    image = _blurred(radiance, scenes.photometry[..., Column.BLUR])
    image = image * exposed(radiance, scenes)[..., None, None]
    image = image * (1 - settings[:, :, Column.VIGNETTE] * _corner_distance(image))
    # A shoulder instead of a hard clip keeps some structure in bright windows.
    image = image * (1 + image * 0.1) / (1 + image * 0.6)
    image = image.clamp(0, 1) ** (settings[:, :, Column.CONTRAST] / 2.2)
    image = image + settings[:, :, Column.NOISE] * _grain(image, scenes.seed)
    return image.clamp_(0, 1)


def exposed(radiance: Tensor, scenes: SceneParameters) -> Tensor:
    """Gains [B, V, 3] of the channels: automatic exposure, the view's own, white balance."""
    settings = scenes.photometry
    mean = radiance.mean((2, 3, 4))
    gain = MIDDLE_GREY * settings[..., Column.EXPOSURE] / mean.clamp(min=1e-6)
    red, blue = settings[..., Column.RED], settings[..., Column.BLUE]
    return gain[..., None] * torch.stack([red, torch.ones_like(red), blue], dim=-1)


def _corner_distance(image: Tensor) -> Tensor:
    """Squared distance from the centre [H, W], 1 in the corners."""
    height, width = image.shape[-2:]
    y = torch.linspace(-1, 1, height, device=image.device)
    x = torch.linspace(-1, 1, width, device=image.device)
    return (y[:, None].square() + x[None, :].square()) / 2


def _blurred(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each view by its own sigma [B, V] pixels, the border repeated."""
    steps = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma[..., None].clamp(min=1e-2)).square())
    kernel = (kernel / kernel.sum(-1, keepdim=True))[..., None, None, None]  # [B, V, 5, 1, 1, 1]
    for axis in (3, 4):
        last = image.shape[axis] - 1
        place = torch.arange(last + 1, device=image.device)
        total = torch.zeros_like(image)
        for number, step in enumerate(range(-BLUR_RADIUS, BLUR_RADIUS + 1)):
            moved = image.index_select(axis, (place + step).clamp(0, last))
            total += kernel[:, :, number] * moved
        image = total
    return image


def _grain(image: Tensor, seed: Tensor) -> Tensor:
    """Noise [B, V, 3, H, W] of variance 1, a function of seed, view and pixel only."""
    views, channels, height, width = image.shape[1:]
    device = image.device
    column = torch.arange(width, dtype=torch.int32, device=device)
    line = torch.arange(channels * height, dtype=torch.int32, device=device)
    view = torch.arange(views, dtype=torch.int32, device=device) * 4099
    start = (seed.to(torch.int32)[:, None] + view)[:, :, None, None]
    code = cell_code(column, line[:, None], start)
    # Twelve uniform numbers are the textbook Gaussian; three already look the same.
    total = to_unit(code) + to_unit(code + 1) + to_unit(code + 2)
    return ((total - 1.5) * 2).reshape(image.shape)
