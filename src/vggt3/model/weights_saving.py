"""Writing weights: a backbone (with its encoder in a file of its own, if wanted), an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3.attention.base import Backend
from vggt3.attention.registry import LayerSpec
from vggt3.model import names, quantisation
from vggt3.model.config import EncoderConfig
from vggt3.model.vggt3 import VGGT3
from vggt3.model.weight_files import Header, Part, StoredLayer, digest, refuse, write
from vggt3.model.weights import (
    attention_prefix,
    fingerprint,
    fixed_buffers,
    load_encoder,
    own_randomness,
    sums,
)


def save_backbone(
    path: Path,
    model: VGGT3,
    *,
    encoder: Path | None = None,
    dtype: torch.dtype | None = torch.bfloat16,
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write everything but the global attention; returns the fingerprint.

    Args:
        path: where; a file that is there is replaced once the new one is whole.
        model: whose.
        encoder: an encoder file in the same folder that holds the model's encoder: it becomes
            a part of this backbone instead of being stored again.
        dtype: of the stored values; None keeps each tensor's own.
        record: how the model was trained, any JSON object.

    Raises:
        DataError: it cannot be written, or ``encoder`` is not the model's.
    """
    tensors = {k: t for k, t in model.state_dict().items() if not names.is_adapter(k)}
    tensors = {k: t if dtype is None else t.to(dtype) for k, t in tensors.items()}
    parts: tuple[Part, ...] = ()
    if encoder is not None:
        if encoder.parent.resolve() != path.parent.resolve():
            refuse(encoder, f"lie in the folder of {path.name}", encoder.parent)
        stored = load_encoder(encoder)[1]
        own = {k: t for k, t in tensors.items() if k.startswith("encoder.")}
        if fingerprint(stored) != fingerprint(own):
            refuse(encoder, "hold the model's encoder", "another one")
        tensors = {k: t for k, t in tensors.items() if k not in own} | stored
        parts = (Part(encoder.name, digest(encoder)),)
    header = Header(
        "backbone", fingerprint(tensors), model.config, parts=parts, record=record or {}
    )
    kept = {k: t for k, t in tensors.items() if not (parts and k.startswith("encoder."))}
    write(path, kept, header)
    return header.fingerprint


def save_adapter(
    path: Path,
    model: VGGT3,
    *,
    backbone: str | None = None,
    dtype: torch.dtype | None = torch.bfloat16,
    packed: bool = False,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's global attention.

    Buffers that equal what the layer draws from its own seed are left out.

    Args:
        path: where; a file that is there is replaced once the new one is whole.
        model: whose.
        backbone: the fingerprint of its backbone; None computes it.
        dtype: of the stored values; None keeps each tensor's own.
        packed: matrices and kernels as int8 (:mod:`quantisation`), whatever ``dtype``.
        record: how it was trained, any JSON object.

    Raises:
        DataError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    layers = []
    for layer, spec in enumerate(model.specs):
        attn = model.aggregator.block(layer).attn
        drawn = _drawn_buffers(spec, attn, layer)
        for name, tensor in attn.state_dict().items():
            if name not in drawn:
                kept = tensor if packed or dtype is None else tensor.to(dtype)
                tensors[attention_prefix(layer) + name] = kept
        layers.append(StoredLayer(spec, sums(drawn) if drawn else None))
    if packed:
        tensors = quantisation.pack(tensors)
    found = fingerprint(model.state_dict()) if backbone is None else backbone
    header = Header("adapter", found, model.config, tuple(layers), record=record or {})
    write(path, tensors, header)


def _drawn_buffers(spec: LayerSpec, attn: Backend, layer: int) -> dict[str, Tensor]:
    """A layer's buffers if they are what it draws from its seed, else none."""
    own = fixed_buffers(attn)
    if not own:
        return {}
    with own_randomness():
        drawn = fixed_buffers(spec.build(attn.width, attn.heads, layer))
    same = own.keys() == drawn.keys() and all(
        own[k].shape == drawn[k].shape and torch.equal(own[k].cpu(), drawn[k].to(own[k].dtype))
        for k in own
    )
    return drawn if same else {}


def save_encoder(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: EncoderConfig,
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write an encoder (``encoder.*``) as int8; returns the fingerprint of what will be loaded."""
    packed = quantisation.pack(tensors)
    found = fingerprint(quantisation.unpack(packed))
    write(path, packed, Header("encoder", found, config, record=record or {}))
    return found
