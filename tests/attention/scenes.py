"""Small whole models and scenes of mixed sizes, in which every backend is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from vggt3.attention.registry import LayerSpec
from vggt3.model.blocks import LayerScale
from vggt3.model.config import TINY
from vggt3.model.scene import Trunk
from vggt3.model.vggt3 import VGGT3
from vggt3.types import ViewGroup, Views

CONFIG = replace(TINY, layers=2, feature_layers=(0, 0, 1, 1), camera_iterations=2)
SIZES = ((28, 42), (42, 28), (28, 42), (28, 42), (42, 28))
"""Height and width of the views of a scene."""


def model_of(spec: LayerSpec, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> VGGT3:
    """A tiny model in which no branch is near zero, so that no error hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VGGT3(CONFIG, (spec,) * CONFIG.layers)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise * parameter.abs().mean().clamp(max=0.2))
        for module in model.modules():
            if isinstance(module, LayerScale):
                drawn = torch.rand(module.gamma.shape, generator=generator)
                module.gamma.copy_(0.3 + 0.7 * drawn)
    return model.to(dtype).eval()


def photos(*, dtype: torch.dtype = torch.float32, count: int = len(SIZES)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator).to(dtype) for size in SIZES[:count]]


def with_masks(views: Views) -> Views:
    """The views with some patches masked out and others half present."""
    generator = torch.Generator().manual_seed(2)
    masks = {i: torch.rand(1, 1, 2, 3, generator=generator) for i in range(views.total)}

    def masked(group: ViewGroup) -> ViewGroup:
        drawn = [masks[i].reshape(1, 1, *group.grid) for i in group.ids]
        weight = torch.cat(drawn, dim=1).to(group.images.dtype)
        return replace(group, weight=weight.masked_fill(weight < 0.3, 0.0))

    return replace(views, groups=tuple(masked(group) for group in views.groups))


def by_view(trunk: Trunk, views: Views) -> Mapping[int, Tensor]:
    """View id → every feature layer's tokens of it, [B, layers, P, 2C]."""
    found = {}
    for features, group in zip(trunk.features, views.groups, strict=True):
        for n, i in enumerate(group.ids):
            found[i] = torch.stack([layer[:, n] for layer in features], dim=1)
    return found


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Each parameter's gradient, zeros where none came."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in module.named_parameters()
    }
