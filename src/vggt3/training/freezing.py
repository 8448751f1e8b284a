"""Which parameters learn: by default only the adapter, the global blocks' attention."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vggt3 import checks
from vggt3.model.names import is_adapter
from vggt3.model.vggt3 import VGGT3

PARTS = ("adapter", "all", "encoder")
"""``adapter``: the global blocks' attention. ``all``: everything but the encoder. ``encoder``:
everything."""


def learns(name: str, part: str) -> bool:
    """Whether the parameter ``name`` of the model learns when ``part`` does."""
    if part == "adapter":
        return is_adapter(name)
    return part == "encoder" or not name.startswith("encoder.")


def freeze(model: VGGT3, part: str) -> None:
    """Let ``part`` (one of :data:`PARTS`) learn and freeze the rest."""
    checks.choose("--learning.train", part, PARTS)
    for name, parameter in model.named_parameters():
        # What has no numbers has nothing to learn, and cannot be spread over processes (FSDP).
        parameter.requires_grad_(learns(name, part) and parameter.numel() > 0)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules none of whose own or inner parameters learn, outermost first."""
    found: list[nn.Module] = []
    for child in model.children():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            found.append(child)
        else:
            found += frozen_modules(child)
    return found


def start_adapter(
    model: VGGT3,
    softmax: Mapping[str, Tensor],  # global_blocks' tensors by their full names
) -> None:
    """Begin every layer's backend from the softmax adapter's tensors of that layer."""
    for layer in range(model.config.layers):
        prefix = f"aggregator.global_blocks.{layer}.attn."
        own = {k.removeprefix(prefix): t for k, t in softmax.items() if k.startswith(prefix)}
        model.aggregator.block(layer).attn.start_from(own)
