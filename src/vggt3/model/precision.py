"""The form of a model that scenes are read with: on its device, products in one dtype.

A copy that shares what it can: the model that was given, which may be in the middle of a training,
stays as it is. In bf16 all parameters are bf16 but those of the places where it would show: what of
the camera head is no product (its LayerNorms, its 9-vector), and the dense heads' last 1×1, whose
output is an exponent. A fixed start of fast weights is fp32 as well.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vggt3.model.vggt3 import VGGT3

LAST = ("depth_head.output3.", "point_head.output3.")
"""The dense heads' last 1×1, fp32 whatever the products are."""


def kept_wide(model: VGGT3) -> set[str]:
    """Names of the parameters of ``model`` that stay fp32 in a bf16 copy."""
    of_products = {
        f"camera_head.{name}.{part}"
        for name, module in model.camera_head.named_modules()
        if isinstance(module, nn.Linear)
        for part in ("weight", "bias")
    }
    return {
        name
        for name, _ in model.named_parameters()
        if name.startswith(LAST) or (name.startswith("camera_head.") and name not in of_products)
    }


def placed(model: VGGT3, device: torch.device, dtype: torch.dtype) -> VGGT3:
    """A copy of ``model`` on ``device`` for reading, its products in ``dtype``.

    Tensors that need no change are shared with ``model``; nothing of it is differentiated.
    """
    shared: dict[int, object] = {}
    wide = kept_wide(model)
    for name, parameter in model.named_parameters():
        kind = parameter.dtype
        if kind.is_floating_point and kind != torch.float64:
            kind = torch.float32 if dtype == torch.float32 or name in wide else dtype
        moved = _moved(parameter.detach(), device, kind)
        shared[id(parameter)] = nn.Parameter(moved, requires_grad=False)
    for buffer in model.buffers():
        shared[id(buffer)] = _moved(buffer, device, buffer.dtype)
    return copy.deepcopy(model, shared).eval()


def _moved(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    # Maps are worked on as [N, H, W, C] on a GPU, and so are the weights they are folded with.
    if x.dim() == 4 and device.type == "cuda" and x.shape[-1] > 1:
        return x.to(device, dtype, memory_format=torch.channels_last)
    return x.to(device, dtype)
