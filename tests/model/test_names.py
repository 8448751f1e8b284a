"""Every public name and shape of FACTS section 2 has a place, and nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vggt3 import checks
from vggt3.model import names
from vggt3.model.config import SMALL, TINY, VGGT_1B, ModelConfig
from vggt3.model.vggt3 import VGGT3

Named = Iterator[tuple[str, tuple[int, ...]]]

C, LAYERS, HEADS, D = 1024, 24, 16, 64


def affine(name: str, *shape: int) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def block(name: str, width: int, attention: Named | None = None, qk_norm: bool = False) -> Named:
    for norm in ("norm1", "norm2"):
        yield from affine(f"{name}.{norm}", width)
    for scale in ("ls1", "ls2"):
        yield f"{name}.{scale}.gamma", (width,)
    yield from affine(f"{name}.mlp.fc1", 4 * width, width)
    yield from affine(f"{name}.mlp.fc2", width, 4 * width)
    yield from affine(f"{name}.attn.qkv", 3 * width, width)
    yield from affine(f"{name}.attn.proj", width, width)
    if qk_norm:
        for norm in ("q_norm", "k_norm"):
            yield from affine(f"{name}.attn.{norm}", D)
    if attention is not None:
        yield from attention


def fast_weights(name: str) -> Named:
    yield from affine(f"{name}.lr_fc", 3 * HEADS, C)
    yield f"{name}.w0", (HEADS, D, 4 * D)
    yield f"{name}.w1", (HEADS, 4 * D, D)
    yield f"{name}.w2", (HEADS, D, 4 * D)
    yield f"{name}.short_conv_qkv.2.conv.weight", (C, 1, 3, 3)
    yield f"{name}.short_conv_qkv.2.conf.weight", (C, 1, 3, 3)


def encoder() -> Named:
    prefix = "aggregator.patch_embed"
    yield f"{prefix}.cls_token", (1, 1, C)
    yield f"{prefix}.pos_embed", (1, 1 + 37 * 37, C)
    yield f"{prefix}.register_tokens", (1, 4, C)
    yield f"{prefix}.mask_token", (1, C)
    yield from affine(f"{prefix}.patch_embed.proj", C, 3, 14, 14)
    for n in range(24):
        yield from block(f"{prefix}.blocks.{n}", C)
    yield from affine(f"{prefix}.norm", C)


def camera_head() -> Named:
    wide = 2 * C
    yield "camera_head.empty_pose_tokens", (1, 1, 9)
    yield from affine("camera_head.embed_pose", wide, 9)
    yield from affine("camera_head.poseLN_modulation.1", 3 * wide, wide)
    for norm in ("token_norm", "trunk_norm"):
        yield from affine(f"camera_head.{norm}", wide)
    for n in range(4):
        yield from block(f"camera_head.trunk.{n}", wide)
    yield from affine("camera_head.pose_branch.fc1", C, wide)
    yield from affine("camera_head.pose_branch.fc2", 9, C)


def dense_head(head: str, channels: int) -> Named:
    sizes, features, s = (256, 512, 1024, 1024), 256, f"{head}.scratch"
    yield from affine(f"{head}.norm", 2 * C)
    for n, size in enumerate(sizes):
        yield from affine(f"{head}.projects.{n}", size, 2 * C, 1, 1)
        yield f"{s}.layer{n + 1}_rn.weight", (features, size, 3, 3)
    # A transposed convolution's weight is [in, out, …]; in and out are equal here.
    for n, kernel in ((0, 4), (1, 2), (3, 3)):
        yield from affine(f"{head}.resize_layers.{n}", sizes[n], sizes[n], kernel, kernel)
    for n in (1, 2, 3, 4):
        yield from affine(f"{s}.refinenet{n}.out_conv", features, features, 1, 1)
        for unit in (1, 2) if n < 4 else (2,):
            for conv in ("conv1", "conv2"):
                name = f"{s}.refinenet{n}.resConfUnit{unit}.{conv}"
                yield from affine(name, features, features, 3, 3)
    yield from affine(f"{s}.output_conv1", features // 2, features, 3, 3)
    yield from affine(f"{s}.output_conv2.0", 32, features // 2, 3, 3)
    yield from affine(f"{s}.output_conv2.2", channels + 1, 32, 1, 1)


def public(dialect: str) -> dict[str, tuple[int, ...]]:
    """What ``facebook/VGGT-1B`` (softmax) or ``nvidia/vgg-ttt`` holds, from the description."""
    found: dict[str, tuple[int, ...]] = {
        "aggregator.camera_token": (1, 2, 1, C),
        "aggregator.register_token": (1, 2, 4, C),
    }
    found.update(encoder())
    found.update(camera_head())
    found.update(dense_head("depth_head", 1))
    found.update(dense_head("point_head", 3))
    for n in range(LAYERS):
        found.update(block(f"aggregator.frame_blocks.{n}", C, qk_norm=True))
        name, soft = f"aggregator.global_blocks.{n}", dialect == "softmax"
        own = None if soft else fast_weights(f"{name}.attn")
        found.update(block(name, C, own, qk_norm=soft))
    if dialect == "softmax":
        found["track_head.tracker.fmap_norm.weight"] = (128,)
        found["track_head.feature_extractor.norm.bias"] = (2 * C,)
    return found


def blank(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors without memory, but for the convolution's two copies, which are compared."""
    return {
        name: torch.zeros(shape) if "short_conv" in name else torch.empty(shape, device="meta")
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("dialect", ["softmax", "ttt_shortconv"])
def test_every_public_name_and_shape_is_accounted_for(dialect: str) -> None:
    tensors = names.from_public(blank(public(dialect)))
    assert names.dialect(tensors) == dialect
    assert names.dialect_options(tensors) == {}
    assert names.infer_config(tensors, VGGT_1B) == VGGT_1B
    with torch.device("meta"):
        model = VGGT3.build(VGGT_1B, dialect)
    model.load_state_dict(tensors, strict=True, assign=True)
    assert names.differences(names.shapes(model.state_dict()), names.shapes(tensors)) == ""


def test_the_public_model_has_the_size_it_is_known_for() -> None:
    """About 1.2 billion parameters, 0.3 of them in the encoder, as its name and paper say."""
    sizes = {k: torch.Size(s).numel() for k, s in public("softmax").items() if "track" not in k}
    assert 1.1e9 < sum(sizes.values()) < 1.2e9
    assert 3.0e8 < sum(n for k, n in sizes.items() if "patch_embed." in k) < 3.1e8


def test_wrappers_of_names_fall_away() -> None:
    token = torch.zeros(1, 1, 9)
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod."):
        assert list(names.from_public({f"{prefix}camera_head.empty_pose_tokens": token})) == [
            "camera_head.empty_pose"
        ]


FIRST = "aggregator.global_blocks.0.attn.short_conv_qkv.2.conv.weight"
SECOND = FIRST.replace(".conv.", ".conf.")


@pytest.mark.parametrize("held", [[FIRST], [SECOND], [FIRST, SECOND]])
def test_a_convolution_under_two_names_is_one(held: list[str]) -> None:
    kernel = torch.arange(9.0).reshape(1, 1, 3, 3)
    found = names.from_public({name: kernel.clone() for name in held})
    assert list(found) == ["aggregator.global_blocks.0.attn.conv.weight"]
    assert torch.equal(next(iter(found.values())), kernel)


def test_a_second_copy_that_is_none_is_refused() -> None:
    kernel = torch.zeros(4, 1, 3, 3)
    with pytest.raises(checks.DataError, match=r"conf\.weight must equal .*conv\.weight"):
        names.from_public({FIRST: kernel, SECOND: kernel + 1})


def test_two_tensors_of_one_name_are_refused() -> None:
    token = torch.zeros(1, 1, 8)
    both = {"aggregator.patch_embed.cls_token": token, "encoder.class_token": token}
    with pytest.raises(checks.DataError, match=r"must hold encoder.class_token once"):
        names.from_public(both)


@pytest.mark.parametrize("config", [TINY, SMALL])
def test_our_own_names_pass_unchanged(config: ModelConfig) -> None:
    with torch.device("meta"):
        state = VGGT3.build(config, "ttt_shortconv").state_dict()
    assert names.from_public(state).keys() == state.keys()
    inferred = names.infer_config(state, replace(config, preset="x"))
    assert inferred.layers == config.layers
    assert inferred.dense_projections == config.dense_projections


def test_options_that_shapes_tell() -> None:
    with torch.device("meta"):
        model = VGGT3.build(TINY, "ttt_shortconv", hidden=2, kernel_size=5)
    assert names.dialect_options(model.state_dict()) == {"hidden": 2, "kernel_size": 5}


def test_differences_are_named() -> None:
    told = names.differences({"a": (1,), "b": (2, 3)}, {"b": (3, 2), "c": ()})
    assert told == "missing: a; unexpected: c; of another shape: b [3, 2] in place of [2, 3]"
    assert names.differences({"a": (1,)}, {"a": [1]}) == ""
    many = names.differences({f"t{n}": (1,) for n in range(9)}, {})
    assert many == "missing: t0, t1, t2, t3 and 5 more"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({}, "must hold aggregator.camera_token, got no such tensor"),
        ({"aggregator.camera_token": ()}, "camera_token must have the shape"),
        ({"aggregator.camera_token": (1, 2, 1, 0)}, "camera_token must have the shape"),
    ],
)
def test_sizes_of_something_else(broken: dict[str, tuple[int, ...]], told: str) -> None:
    with pytest.raises(checks.DataError, match=told):
        names.infer_config({k: torch.zeros(s) for k, s in broken.items()}, VGGT_1B)


def test_a_dialect_that_is_none() -> None:
    with pytest.raises(checks.DataError, match="must hold global attention"):
        names.dialect(["aggregator.global_blocks.0.attn.qkv.weight"])


def test_numbers_in_names_are_bounded_by_the_tensors_there_are() -> None:
    tensors = {"aggregator.global_blocks.99999999999.norm1.weight": torch.zeros(1)}
    assert names._count(tensors, r"aggregator\.global_blocks\.(\d+)\.") == 1
