"""Public checkpoint names ↔ ours, and the sizes that a state dict's shapes tell.

Two dialects: VGGT's (softmax) and its linearised form (fast weights). Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
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

SECOND_COPY, FIRST_COPY = ".short_conv_qkv.2.conf.weight", ".short_conv_qkv.2.conv.weight"
"""The linearised checkpoint holds one convolution under two names; a format that stores shared
tensors once keeps either of them."""

WRAPPERS = ("module.", "_orig_mod.")
"""What data-parallel and compiled modules put in front of every name."""

Shapes = Mapping[str, Sequence[int]]


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
    """A public state dict under our names, ignorable tensors left out.

    Raises:
        DataError: two tensors of one name, or a second copy that is no copy.
    """
    bare = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    found: dict[str, Tensor] = {}
    for name, tensor in _single_copies(bare).items():
        renamed = ours(name)
        if renamed is None:
            continue
        checks.require(
            renamed not in found,
            "checkpoint",
            f"hold {renamed} once",
            f"{name} beside another of that name",
            error=checks.DataError,
        )
        found[renamed] = tensor
    return found


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS * 2:
        name = name.removeprefix(wrapper)
    return name


def _single_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions that have two names under the first of them."""
    single = dict(tensors)
    for name in [name for name in tensors if name.endswith(SECOND_COPY)]:
        copy, first = single.pop(name), name.replace(SECOND_COPY, FIRST_COPY)
        kept = single.setdefault(first, copy)
        same = kept.shape == copy.shape and bool(torch.equal(kept, copy))
        checks.require(same, name, f"equal {first}", "other values", error=checks.DataError)
    return single


def from_dinov2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain DINOv2 state dict (``cls_token``, ``blocks.0…``) under our names."""
    bare = {f"aggregator.patch_embed.{_unwrapped(k)}": t for k, t in tensors.items()}
    found = from_public(bare)
    if "encoder.class_token" in found and "encoder.registers" not in found:
        token = found["encoder.class_token"]
        found["encoder.registers"] = token.new_zeros(1, 0, token.shape[-1])
    return found


def is_adapter(name: str) -> bool:
    """Whether one of our tensor names belongs to the adapter: attention of a global block."""
    return bool(re.match(r"^aggregator\.global_blocks\.\d+\.attn\.", name))


def layer_of(name: str) -> int:
    """The global block that an adapter's tensor belongs to."""
    return int(name.split(".")[2])


def differences(expected: Shapes, found: Shapes) -> str:
    """What is missing, unexpected or of another shape, in words; '' where nothing is."""
    told = []
    for what, names in (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unexpected", sorted(found.keys() - expected.keys())),
        (
            "of another shape",
            [
                f"{name} {list(found[name])} in place of {list(shape)}"
                for name, shape in sorted(expected.items())
                if name in found and list(found[name]) != list(shape)
            ],
        ),
    ):
        if names:
            rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
            told.append(f"{what}: {', '.join(names[:4])}{rest}")
    return "; ".join(told)


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


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


def dialect_options(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The backend's options that shapes tell, where they are not the defaults."""
    found: dict[str, int] = {}
    attn = "aggregator.global_blocks.0.attn."
    start, conv = tensors.get(f"{attn}w0"), tensors.get(f"{attn}conv.weight")
    if start is not None and start.dim() == 3 and start.shape[1] > 0:
        found["hidden"] = start.shape[2] // start.shape[1]
    if conv is not None and conv.dim() == 4:
        found["kernel_size"] = conv.shape[-1]
    return {k: v for k, v in found.items() if v != {"hidden": 4, "kernel_size": 3}[k]}


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """1 + the largest number in the names; never more than there are tensors."""
    found = [int(m[1]) for m in (re.match(pattern, name) for name in tensors) if m]
    return min(max(found, default=-1) + 1, len(tensors))


class _Sizes:
    """Shapes by name; a tensor that is not there or has too few dimensions is an error."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.shapes = shapes(tensors)

    def __call__(self, name: str, dimension: int) -> int:
        shape = self.shapes.get(name)
        if shape is None:
            checks.fail("checkpoint", f"hold {name}", "no such tensor", error=checks.DataError)
        checks.require(
            -len(shape) <= dimension < len(shape) and min(shape, default=1) > 0,
            name,
            "have the shape that every VGGT's has",
            list(shape),
            error=checks.DataError,
        )
        return shape[dimension]


def _four(values: Iterable[int]) -> tuple[int, int, int, int]:
    a, b, c, d = values
    return a, b, c, d


def infer_encoder(tensors: Mapping[str, Tensor], heads: int) -> EncoderConfig:
    """The sizes of the encoder in a state dict (our names); heads leave no trace in shapes.

    Raises:
        DataError: a tensor that every encoder has is missing.
    """
    size, registers = _Sizes(tensors), tensors.get("encoder.registers")
    return EncoderConfig(
        width=size("encoder.patch.weight", 0),
        depth=_count(tensors, r"encoder\.blocks\.(\d+)\."),
        heads=heads,
        registers=0 if registers is None or registers.dim() != 3 else registers.shape[1],
        position_grid=round((size("encoder.position", 1) - 1) ** 0.5),
    )


def infer_config(tensors: Mapping[str, Tensor], like: ModelConfig) -> ModelConfig:
    """The sizes that a state dict (our names) has; what shapes cannot tell is ``like``'s.

    One head width serves encoder and aggregator, as in the public models; the camera head's
    number of heads is ``like``'s, and the layers that the dense heads read are spread as there.

    Raises:
        DataError: a tensor that every VGGT has is missing.
    """
    size = _Sizes(tensors)
    width = size("aggregator.camera_token", -1)
    layers = _count(tensors, r"aggregator\.global_blocks\.(\d+)\.")
    head_width = size("aggregator.frame_blocks.0.attn.q_norm.weight", 0)
    reads = _four(round((i + 1) * layers / like.layers) - 1 for i in like.feature_layers)
    projections = _four(size(f"depth_head.projections.{n}.weight", 0) for n in range(4))
    return ModelConfig(
        preset=like.preset,
        encoder=infer_encoder(tensors, size("encoder.patch.weight", 0) // head_width),
        width=width,
        layers=layers,
        heads=width // head_width,
        registers=size("aggregator.register_token", 2),
        feature_layers=reads if len(set(reads)) == 4 else _four(range(layers - 4, layers)),
        camera_depth=_count(tensors, r"camera_head\.trunk\.(\d+)\."),
        camera_heads=like.camera_heads,
        camera_iterations=like.camera_iterations,
        dense_features=size("depth_head.output1.weight", 1),
        dense_projections=projections,
        dense_output=size("depth_head.output2.weight", 0),
        pixel_offset=like.pixel_offset,
        long_side=like.long_side,
    )
