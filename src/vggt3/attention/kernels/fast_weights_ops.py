"""The Triton kernels of the fast weights as torch operators with gradients.

Operators, so that torch.compile keeps them whole, FLOPs are counted and autograd is told the
backward. Every sum over tokens is two passes in a fixed order (parts of the tokens, then the
parts), without atomics: a call repeats bit for bit, on any GPU of one kind.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vggt3.attention.kernels.fast_weights import INTERPRETED

FP32 = torch.float32
PROGRAMS = 512
"""About how many programs a sum starts; parts of the tokens follow from it, on every machine."""
PRECISION = "tf32x3"
"""How fp32 operands are multiplied: as three TF32 products, which keep nearly all 24 bits."""

Launch = tuple[int, int, int, int]
"""Hidden units and tokens at a time, warps, stages."""
LAUNCHES: dict[tuple[str, int], dict[int, Launch]] = {
    ("sums", 2): {32: (32, 64, 4, 2), 64: (64, 32, 4, 3), 128: (32, 64, 8, 2)},
    ("sums", 4): {32: (32, 16, 4, 1), 64: (32, 16, 4, 1), 128: (16, 16, 8, 1)},
    ("read", 2): {32: (32, 64, 4, 2), 64: (32, 64, 4, 3), 128: (32, 64, 8, 2)},
    ("read", 4): {32: (32, 32, 4, 1), 64: (32, 32, 4, 1), 128: (32, 16, 4, 1)},
    ("read_to_tokens", 2): {32: (32, 64, 4, 2), 64: (32, 128, 8, 2), 128: (32, 64, 8, 2)},
    ("read_to_tokens", 4): {32: (32, 16, 4, 1), 64: (32, 16, 4, 1), 128: (16, 16, 8, 1)},
    ("sums_to_weights", 2): {32: (32, 64, 4, 2), 64: (32, 64, 4, 2), 128: (32, 32, 4, 1)},
    ("sums_to_weights", 4): {32: (32, 16, 4, 1), 64: (16, 16, 4, 1), 128: (16, 16, 8, 1)},
    ("sums_to_tokens", 2): {32: (32, 64, 4, 2), 64: (32, 64, 4, 2), 128: (32, 32, 4, 1)},
    ("sums_to_tokens", 4): {32: (32, 16, 4, 1), 64: (16, 16, 4, 1), 128: (16, 16, 8, 1)},
}
"""(Kernel, bytes of an operand) → head width → launch. Pinned, so that runs repeat; chosen so that
ptxas for sm_90 keeps bf16 in registers, but for 4 to 300 bytes a thread in sums_to_tokens. In fp32
the backward of the sums spills, by kilobytes at width 128, where it takes 112 KiB shared memory.
"""

Three = tuple[Tensor, Tensor, Tensor]
Settings = dict[str, Any]


def _rows(x: Tensor) -> Tensor:
    """The same values with rows that are contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    """Of batch, head and token."""
    return [stride for x in tensors for stride in x.stride()[:3]]


def _operand(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, H, ...] → [B·H, ...] in the dtype of the tokens."""
    return weight.to(dtype).flatten(0, 1).contiguous()


def _settings(name: str, tokens: Tensor) -> Settings:
    """How a kernel is compiled for these tokens [B, H, N, d]."""
    width = tokens.shape[-1]
    block, tile, warps, stages = LAUNCHES[name, tokens.element_size()][width]
    how = "widened" if INTERPRETED else PRECISION
    kept = {"width": width, "block": block, "tile": tile, "how": how}
    return kept | {"num_warps": warps, "num_stages": stages}


def _sum_tokens(name: str, tokens: tuple[Tensor, Tensor, Tensor], weights: list[Tensor]) -> Three:
    """Launch a kernel that sums over tokens, then add the parts: [B, H, d, h] of fp32, …"""
    from vggt3.attention.kernels import fast_weights_triton

    k, v, rates = tokens
    batch, heads, count, width = k.shape
    hidden = weights[0].shape[-1]
    settings = _settings(name, k)
    blocks = hidden // settings["block"]
    tiles = -(-count // settings["tile"])
    share = -(-tiles // max(1, PROGRAMS // (batch * heads * blocks))) * settings["tile"]
    parts = -(-count // share) if count else 0
    found = torch.empty(3, parts, batch, heads, width * hidden, device=k.device, dtype=FP32)
    if found.numel():
        with torch.cuda.device_of(k):
            getattr(fast_weights_triton, name)[blocks, parts, batch * heads](
                k, v, rates, *(_operand(w, k.dtype) for w in weights), *found,
                heads, count, hidden, share, *_strides(k, v), *rates.stride(), **settings,
            )  # fmt: skip
    g0, g1, g2 = (partial.sum(dim=0) for partial in found)
    out, back = (width, hidden), (hidden, width)
    return g0.unflatten(-1, out), g1.unflatten(-1, back), g2.unflatten(-1, out)


def _tile_tokens(
    name: str, tensors: list[Tensor], made: list[Tensor], weights: list[Tensor]
) -> None:
    """Launch a kernel that fills ``made`` tile by tile of tokens; rates have one more stride."""
    from vggt3.attention.kernels import fast_weights_triton

    first = tensors[0]
    batch, heads, count, width = first.shape
    settings = _settings(name, first)
    strides = [s for x in (*tensors, *made) for s in x.stride()[: 3 if x.shape[-1] == width else 4]]
    if not first.numel():
        return
    with torch.cuda.device_of(first):
        getattr(fast_weights_triton, name)[-(-count // settings["tile"]), batch * heads](
            *tensors, *(_operand(w, first.dtype) for w in weights), *made,
            heads, count, weights[0].shape[-1], *strides, **settings,
        )  # fmt: skip


@torch.library.custom_op(
    "vggt3::fast_weights_sums",
    mutates_args=(),
    schema="(Tensor k, Tensor v, Tensor rates, Tensor w0, Tensor w1, Tensor w2)"
    " -> (Tensor, Tensor, Tensor)",
)
def sums(k: Tensor, v: Tensor, rates: Tensor, w0: Tensor, w1: Tensor, w2: Tensor) -> Three:
    """G0, G1, G2 in fp32, as ``vggt3.attention.fast_weights.gradient``."""
    tokens = (_rows(k), _rows(v), rates)
    return _sum_tokens("sums", tokens, [w0, w1, w2])


_PULLED = (
    "(Tensor k, Tensor v, Tensor rates, Tensor w0, Tensor w1, Tensor w2,"
    " Tensor c0, Tensor c1, Tensor c2) -> (Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("vggt3::fast_weights_sums_to_tokens", mutates_args=(), schema=_PULLED)
def sums_to_tokens(k: Tensor, v: Tensor, rates: Tensor, *matrices: Tensor) -> Three:
    """Gradients of k, v and rates from the cotangents c of the three sums."""
    k, v = _rows(k), _rows(v)
    dk, dv, de = (torch.empty_like(x) for x in (k, v, rates))
    _tile_tokens("sums_to_tokens", [k, v, rates], [dk, dv, de], list(matrices))
    return dk, dv, de


@torch.library.custom_op("vggt3::fast_weights_sums_to_weights", mutates_args=(), schema=_PULLED)
def sums_to_weights(k: Tensor, v: Tensor, rates: Tensor, *matrices: Tensor) -> Three:
    """Gradients of W0, W1, W2 in fp32 from the cotangents c of the three sums."""
    return _sum_tokens("sums_to_weights", (_rows(k), _rows(v), rates), list(matrices))


@torch.library.custom_op(
    "vggt3::fast_weights_read",
    mutates_args=(),
    schema="(Tensor q, Tensor w0, Tensor w1, Tensor w2) -> Tensor",
)
def read(q: Tensor, w0: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """f(q) in the dtype of q, as ``vggt3.attention.fast_weights.apply``."""
    q = _rows(q)
    out = torch.empty_like(q)
    _tile_tokens("read", [q], [out], [w0, w1, w2])
    return out


@torch.library.custom_op(
    "vggt3::fast_weights_read_to_tokens",
    mutates_args=(),
    schema="(Tensor q, Tensor w0, Tensor w1, Tensor w2, Tensor pull) -> Tensor",
)
def read_to_tokens(q: Tensor, w0: Tensor, w1: Tensor, w2: Tensor, pull: Tensor) -> Tensor:
    """Gradient of q from the output's cotangent."""
    q = _rows(q)
    dq = torch.empty_like(q)
    _tile_tokens("read_to_tokens", [q, _rows(pull)], [dq], [w0, w1, w2])
    return dq


def _fake_sums(k: Tensor, v: Tensor, rates: Tensor, *matrices: Tensor) -> Three:
    w0, w1, w2 = (w.new_empty(w.shape, dtype=torch.float32) for w in matrices[:3])
    return w0, w1, w2


def _fake_tokens(k: Tensor, v: Tensor, rates: Tensor, *matrices: Tensor) -> Three:
    return torch.empty_like(_rows(k)), torch.empty_like(_rows(v)), torch.empty_like(rates)


def _fake_read(q: Tensor, *matrices: Tensor) -> Tensor:
    return torch.empty_like(_rows(q))


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _sums_gradients(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:
    """Of all inputs; a first sweep's weights are a constant, and then theirs are not computed."""
    tokens = weights = (None, None, None)
    if any(ctx.needs_input_grad[:3]):
        tokens = sums_to_tokens(*ctx.saved_tensors, *pulls)
    if any(ctx.needs_input_grad[3:]):
        weights = sums_to_weights(*ctx.saved_tensors, *pulls)
    return *tokens, *weights


def _read_gradients(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
    """Of all inputs; those of the weights are the sums with v = ``pull`` and rates of 1."""
    q, *matrices = ctx.saved_tensors
    dq, weights = None, (None, None, None)
    if ctx.needs_input_grad[0]:
        dq = read_to_tokens(q, *matrices, pull)
    if any(ctx.needs_input_grad[1:]):
        rates = matrices[0].new_ones(1, 1, 1, 1, dtype=torch.float32).expand(*q.shape[:3], 3)
        weights = sums(q, pull, rates, *matrices)
    return dq, *weights


def _count(products: int, weights: int) -> Any:
    """FLOPs of as many products of N×d×h a head; W0 is argument number ``weights``."""

    def count(*shapes: tuple[int, ...], **named: Any) -> int:
        batch, heads, tokens, width = shapes[0]
        return 2 * products * batch * heads * tokens * width * shapes[weights][-1]

    return count


for _operator, _fake, _products, _place in (
    (sums, _fake_sums, 6, 3),
    (sums_to_tokens, _fake_tokens, 12, 3),
    (sums_to_weights, _fake_sums, 9, 3),
    (read, _fake_read, 3, 1),
    (read_to_tokens, _fake_read, 5, 1),
):
    _operator.register_fake(_fake)
    register_flop_formula(_operator._opoverload.overloadpacket)(_count(_products, _place))
sums.register_autograd(_sums_gradients, setup_context=_keep_inputs)
read.register_autograd(_read_gradients, setup_context=_keep_inputs)
