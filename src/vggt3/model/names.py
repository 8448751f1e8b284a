"""Public checkpoint names ↔ ours, and the sizes that a state dict's shapes tell.

Two dialects: VGGT's (softmax) and its linearised form (fast weights). Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from vggt3 import checks
from vggt3.model.config import EncoderConfig, ModelConfig

PUBLIC_TO_OURS: tuple[tuple[str, str], ...] = (
    (r"^aggregator\.patch_embed\.patch_embed\.proj\.", "encoder.patch."),
    (r"^aggregator\.patch_embed\.cls_token$", "encoder.class_token"),
    (r"^aggregator\.patch_embed\.pos_embed$", "encoder.position"),
    (r"^aggregator\.patch_embed\.register_tokens$", "encoder.registers"),
    (r"^aggregator\.patch_embed\.", "encoder."),
    (r"^camera_head\.empty_pose_tokens$", "camera_head.empty_pose"),
    (r"^camera_head\.poseLN_modulation\.1\.", "camera_head.modulation."),
    (r"^camera_head\.pose_branch\.", "camera_head.branch."),
    (r"^(depth|point)_head\.projects\.", r"\1_head.projections."),
    (r"^(depth|point)_head\.resize_layers\.", r"\1_head.resizes."),
    (r"^(depth|point)_head\.scratch\.output_conv1\.", r"\1_head.output1."),
    (r"^(depth|point)_head\.scratch\.output_conv2\.0\.", r"\1_head.output2."),
    (r"^(depth|point)_head\.scratch\.output_conv2\.2\.", r"\1_head.output3."),
    (r"\.attn\.lr_fc\.", ".attn.rates."),
    (r"\.attn\.short_conv_qkv\.2\.conv\.", ".attn.conv."),
)
"""Applied in order, the first that matches; names no row matches are the same in both."""

NUMBERED: tuple[tuple[str, str], ...] = (
    (r"^(depth|point)_head\.scratch\.layer([1-4])_rn\.", "{0}_head.reassembles.{1}."),
    (r"^(depth|point)_head\.scratch\.refinenet([1-4])\.out_conv\.", "{0}_head.fusions.{1}.out."),
    (
        r"^(depth|point)_head\.scratch\.refinenet([1-4])\.resConfUnit([12])\.",
        "{0}_head.fusions.{1}.residual{2}.",
    ),
)
"""The same for names that count from 1 where ours count from 0."""

IGNORED = (
    r"^track_head\.",
    r"^aggregator\.patch_embed\.mask_token$",
    r"\.attn\.short_conv_qkv\.2\.conf\.weight$",
)
"""Tensors of public files that have no place here: the tracker, DINOv2's unused mask token, and
the linearised checkpoint's second copy of its convolution."""


def ours(name: str) -> str | None:
    """Our name of a public tensor; None for one that is knowingly ignored."""
    if any(re.search(pattern, name) for pattern in IGNORED):
        return None
    for pattern, form in NUMBERED:
        match = re.match(pattern, name)
        if match:
            head, level, *unit = match.groups()
            return form.format(head, int(level) - 1, *unit) + name[match.end() :]
    for pattern, replacement in PUBLIC_TO_OURS:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def from_public(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A public state dict under our names, ignorable tensors left out."""
    renamed = {ours(name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in renamed.items() if name is not None}


def is_adapter(name: str) -> bool:
    """Whether one of our tensor names belongs to the adapter: attention of a global block."""
    return bool(re.match(r"^aggregator\.global_blocks\.\d+\.attn\.", name))


def dialect(names: Iterable[str]) -> str:
    """The backend that a single-file checkpoint (our names) carries: one of the shipped ones."""
    found = {name.split(".attn.")[1].split(".")[0] for name in names if is_adapter(name)}
    if "conv" in found:
        return "ttt_shortconv"
    if "w0" in found:
        return "ttt_mlp"
    if "q_norm" in found:
        return "softmax"
    checks.fail(
        "checkpoint",
        "hold global attention of VGGT (q_norm, k_norm) or its linearised form (w0, w1, w2)",
        sorted(found) or "none",
        error=checks.DataError,
    )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = [int(m[1]) for m in (re.match(pattern, name) for name in tensors) if m]
    return max(found, default=-1) + 1


def infer_config(tensors: Mapping[str, Tensor], like: ModelConfig) -> ModelConfig:
    """The sizes that a state dict (our names) has; what shapes cannot tell is ``like``'s.

    One head width serves encoder and aggregator, as in the public models; the camera head's
    number of heads is ``like``'s, and the layers that the dense heads read are spread as there.

    Raises:
        DataError: a tensor that every VGGT has is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            checks.fail("checkpoint", f"hold {name}", "no such tensor", error=checks.DataError)
        return tuple(tensors[name].shape)

    encoder_width = shape("encoder.patch.weight")[0]
    width = shape("aggregator.camera_token")[-1]
    layers = _count(tensors, r"aggregator\.global_blocks\.(\d+)\.")
    head_width = shape("aggregator.frame_blocks.0.attn.q_norm.weight")[0]
    reads = tuple(round((i + 1) * layers / like.layers) - 1 for i in like.feature_layers)
    projections = tuple(shape(f"depth_head.projections.{n}.weight")[0] for n in range(4))
    registers = tensors.get("encoder.registers")
    return ModelConfig(
        preset=like.preset,
        encoder=EncoderConfig(
            width=encoder_width,
            depth=_count(tensors, r"encoder\.blocks\.(\d+)\."),
            heads=encoder_width // head_width,
            registers=0 if registers is None else registers.shape[1],
            position_grid=round((shape("encoder.position")[1] - 1) ** 0.5),
        ),
        width=width,
        layers=layers,
        heads=width // head_width,
        registers=shape("aggregator.register_token")[2],
        feature_layers=reads if len(set(reads)) == 4 else tuple(range(layers - 4, layers)),
        camera_depth=_count(tensors, r"camera_head\.trunk\.(\d+)\."),
        camera_heads=like.camera_heads,
        camera_iterations=like.camera_iterations,
        dense_features=shape("depth_head.output1.weight")[1],
        dense_projections=projections,
        dense_output=shape("depth_head.output2.weight")[0],
        pixel_offset=like.pixel_offset,
        long_side=like.long_side,
    )
