"""int8 storage of weights: symmetric, one fp32 factor for each output channel.

w ≈ q·s with s = max|w| / 127 over the channel and q = round(w / s) in -127..127. Storage only:
weights are multiplied out when they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vggt3 import checks

SCALE = ".scale"
"""What follows an int8 tensor's name in the name of its factors."""
LEVELS = 127


def quantise(
    weight: Tensor,  # [out, ...]
) -> tuple[Tensor, Tensor]:
    """int8 of the same shape, and fp32 factors [out]; a channel of zeros has factor 1, one with a
    value that is not finite a factor that is not."""
    wide = weight.detach().float()
    largest = wide.flatten(1).abs().amax(dim=1)
    scale = torch.where(largest == 0, torch.ones_like(largest), largest / LEVELS)
    steps = (wide / _spread(scale, wide)).round().clamp(-LEVELS, LEVELS)
    return steps.to(torch.int8), scale


def dequantise(
    steps: Tensor,  # int8 [out, ...]
    scale: Tensor,  # [out]
) -> Tensor:
    """fp32 of the same shape."""
    return steps.float() * _spread(scale.float(), steps)


def _spread(scale: Tensor, like: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (like.dim() - 1))


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels (``….weight`` of two dimensions or more) as int8, the rest as bf16."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.dim() >= 2 and tensor.numel():
            packed[name], packed[name + SCALE] = quantise(tensor)
        else:
            packed[name] = tensor.detach().to(torch.bfloat16)
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`pack`: int8 tensors multiplied out in fp32, others as they are.

    Raises:
        DataError: an int8 tensor without a factor for each of its channels.
    """
    found = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype != torch.int8:
            continue
        scale = found.pop(name + SCALE, None)
        wanted = list(tensor.shape[:1])
        fits = scale is not None and wanted != [] and list(scale.shape) == wanted
        if scale is None or not fits or not scale.is_floating_point():
            got = "none" if scale is None else f"{scale.dtype} {list(scale.shape)}"
            checks.fail(name + SCALE, f"have shape {wanted}", got, error=checks.DataError)
        found[name] = dequantise(tensor, scale)
    return found
