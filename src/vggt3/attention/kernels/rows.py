"""What a block does to rows of tokens between its matrix products: one kernel each on a GPU.

Residuals, norms, rotations and the short convolution move many bytes for few operations. Plain
torch does each step in passes of its own; where nothing is differentiated and tokens are bf16 on a
CUDA device, a Triton kernel does it in one, in fp32 inside. The functions are the equations; they
choose, and give the same to rounding.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, linear, silu

from vggt3.attention.rope import Rope

INSTALLED = importlib.util.find_spec("triton") is not None
LENGTH_EPSILON = 1e-5
AT_ONCE = 4096
"""Numbers of one program of a kernel, about."""
STEPS = 16
"""Tiles that a program of the convolution goes through."""
HEAD_WIDTHS = (16, 32, 64, 128)


@functools.cache
def _device_suits(index: int) -> bool:
    properties = torch.cuda.get_device_properties(index)
    return torch.version.hip is None and properties.major >= 8


def fused(*tensors: Tensor) -> bool:
    """Whether the kernels may take these: bf16 on a GPU, whole rows, nothing to differentiate."""
    first = tensors[0]
    if not first.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    whole = all(x.dtype == torch.bfloat16 and x.is_contiguous() for x in tensors)
    return whole and INSTALLED and first.numel() > 0 and _device_suits(first.device.index)


def residual(
    x: Tensor,  # [..., C]
    mixed: Tensor,  # [..., C]
    *parameters: Tensor,
) -> bool:
    """Whether the kernels may add ``mixed``: bf16, to tokens that may be fp32 where products are
    under autocast."""
    whole = all(t.is_contiguous() for t in (x, *parameters))
    return fused(mixed) and whole and x.dtype in (torch.bfloat16, torch.float32)


def add_scaled(
    x: Tensor,  # [..., C]
    mixed: Tensor,  # [..., C]
    gamma: Tensor,  # [C]
) -> Tensor:
    """x + γ·mixed."""
    if residual(x, mixed, gamma):
        return launch_add_scaled(x, mixed, gamma)
    return x + mixed * gamma


def add_norm(
    x: Tensor,  # [..., C]
    mixed: Tensor,  # [..., C]
    gamma: Tensor,  # [C]
    norm: torch.nn.LayerNorm,
) -> tuple[Tensor, Tensor]:
    """s = x + γ·mixed, and the LayerNorm of s, which the kernel writes in ``mixed``'s dtype."""
    if residual(x, mixed, gamma, norm.weight, norm.bias):
        return launch_add_norm(x, mixed, gamma, norm)
    total = x + mixed * gamma
    return total, norm(total)


def linear_gelu(
    x: Tensor,  # [..., C]
    weight: Tensor,  # [H, C]
    bias: Tensor,  # [H]
) -> Tensor:
    """GELU(x Wᵀ + b), exact (erf). On a GPU in bf16 the product's own epilogue adds the GELU's
    tanh form, which is closer to the exact one (3e-4) than bf16 rounds."""
    if fused(x, weight, bias):
        out = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
        return out.unflatten(0, x.shape[:-1])
    return gelu(linear(x, weight, bias))


def norm_turn(
    qkv: Tensor,  # [..., P, 3·H·D]
    heads: int,
    norms: tuple[torch.nn.LayerNorm, torch.nn.LayerNorm],
    rope: Rope,
) -> tuple[Tensor, Tensor]:
    """q, k [..., P, H, D]: through their LayerNorm over D, then turned."""
    split = qkv.unflatten(-1, (3, heads, -1))
    if fused(qkv, norms[0].weight, norms[1].weight) and split.shape[-1] in HEAD_WIDTHS:
        return launch_turn(qkv, heads, rope, norms)
    q, k = (norm(split[..., n, :, :]).transpose(-2, -3) for n, norm in enumerate(norms))
    q, k = (rope.turn(x).to(qkv.dtype).transpose(-2, -3) for x in (q, k))
    return q, k


def silu_turn(
    qkv: Tensor,  # [..., P, 3·H·D]
    heads: int,
    rope: Rope,
    wide: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """q, k [..., P, H, D]: SiLU, turned, divided by their length + 1e-5; in ``wide`` unless
    fused."""
    split = qkv.unflatten(-1, (3, heads, -1))
    if fused(qkv) and split.shape[-1] in HEAD_WIDTHS:
        return launch_turn(qkv, heads, rope)
    q, k = (silu(split[..., n, :, :].to(wide)).transpose(-2, -3) for n in (0, 1))
    q, k = (unit(rope.turn(x)).transpose(-2, -3) for x in (q, k))
    return q, k


def convolve(
    x: Tensor,  # [B, V, P, C]
    weight: Tensor,  # [C, 1, side, side]
    special: int,
    grid: tuple[int, int],
) -> Tensor:
    """A depthwise convolution over each view's patch grid, zeros around it; the ``special`` tokens
    in front pass unchanged."""
    patches = x[:, :, special:].unflatten(2, grid)  # [B, V, rows, columns, C]
    batch, views, *_, channels = patches.shape
    if views == 0:
        return x
    maps = patches.flatten(0, 1).permute(0, 3, 1, 2)  # [B·V, C, rows, columns]
    mixed = conv2d(maps, weight, padding=weight.shape[-1] // 2, groups=channels)
    mixed = mixed.flatten(2).transpose(1, 2).unflatten(0, (batch, views))
    return torch.cat([x[:, :, :special], mixed], dim=2)


def convolve_silu(x: Tensor, weight: Tensor, special: int, grid: tuple[int, int]) -> Tensor:
    """SiLU of :func:`convolve`; ``x`` may be a part of longer rows, such as v of [q | k | v]."""
    of_rows = x.stride() == _strides(x.shape, x.stride(-2))
    if of_rows and fused(weight) and x.dtype == weight.dtype and x.numel():
        return launch_convolve(x, weight, special, grid)
    return silu(convolve(x, weight, special, grid))


def _strides(shape: torch.Size, row: int) -> tuple[int, ...]:
    """Of rows that lie ``row`` apart, whatever the dimensions before them."""
    found = [1, row]
    for size in reversed(shape[1:-1]):
        found.append(found[-1] * size)
    return tuple(reversed(found))


def unit(x: Tensor) -> Tensor:
    """x / (‖x‖₂ + 1e-5) over the last dimension."""
    return x / (x.norm(dim=-1, keepdim=True) + LENGTH_EPSILON)


def launch_add_scaled(x: Tensor, mixed: Tensor, gamma: Tensor) -> Tensor:
    """The kernel of :func:`add_scaled`."""
    from vggt3.attention.kernels import rows_triton

    total = torch.empty_like(x)
    settings, count, width = _by_rows(x)
    with torch.cuda.device_of(x):
        rows_triton.add_scaled[(-(-count // settings["tile"]),)](
            x, mixed, gamma, total, count, width, **settings
        )
    return total


def launch_add_norm(
    x: Tensor, mixed: Tensor, gamma: Tensor, norm: torch.nn.LayerNorm
) -> tuple[Tensor, Tensor]:
    """The kernel of :func:`add_norm`."""
    from vggt3.attention.kernels import rows_triton

    total, normed = torch.empty_like(x), torch.empty_like(mixed)
    settings, count, width = _by_rows(x)
    with torch.cuda.device_of(x):
        rows_triton.add_norm[(-(-count // settings["tile"]),)](
            x, mixed, gamma, norm.weight, norm.bias, total, normed, count, width, norm.eps,
            **settings,
        )  # fmt: skip
    return total, normed


def launch_turn(
    qkv: Tensor,  # [..., P, 3·H·D]
    heads: int,
    rope: Rope,
    norms: tuple[torch.nn.LayerNorm, torch.nn.LayerNorm] | None = None,
) -> tuple[Tensor, Tensor]:
    """The kernel of :func:`norm_turn`, and without norms of :func:`silu_turn`: [..., P, H, D]."""
    from vggt3.attention.kernels import rows_triton

    width = qkv.shape[-1] // (3 * heads)
    count, padded = qkv.numel() // qkv.shape[-1], 1 << (heads - 1).bit_length()
    tile = max(1, AT_ONCE // (padded * width))
    shape = (*qkv.shape[:-1], heads, width)
    q, k = qkv.new_empty(shape), qkv.new_empty(shape)
    eps, parameters = LENGTH_EPSILON, [qkv] * 4  # of which nothing is read
    if norms is not None:
        eps = norms[0].eps
        parameters = [p for norm in norms for p in (norm.weight, norm.bias)]
    with torch.cuda.device_of(qkv):
        rows_triton.turn[-(-count // tile), 2](
            qkv, rope.cos, rope.sin, *parameters, q, k, count, rope.cos.shape[0], heads, eps,
            width=width // 4, padded=padded, tile=tile, unit=norms is None, num_warps=4,
        )  # fmt: skip
    return q, k


def launch_convolve(
    rows: Tensor,  # [..., P, C], rows of one stride
    weight: Tensor,  # [C, 1, side, side]
    special: int,
    grid: tuple[int, int],
) -> Tensor:
    """SiLU of the depthwise convolution over each view's grid, special tokens left out of it:
    [..., P, C]."""
    from vggt3.attention.kernels import rows_triton

    channels, side = rows.shape[-1], weight.shape[-1]
    taps = weight.flatten(1).t().contiguous()  # [side², C]
    out = rows.new_empty(rows.shape)
    count = rows.numel() // channels
    block = min(128, 1 << (channels - 1).bit_length())
    tile = AT_ONCE // 2 // block
    with torch.cuda.device_of(rows):
        rows_triton.convolve[-(-count // (tile * STEPS)), -(-channels // block)](
            rows, taps, out, count, rows.stride(-2), channels, special + grid[0] * grid[1],
            special, *grid, side=side, tile=tile, block=block, steps=STEPS, num_warps=4,
        )  # fmt: skip
    return out


def _by_rows(x: Tensor) -> tuple[dict[str, int], int, int]:
    width = x.shape[-1]
    block = 1 << (width - 1).bit_length()
    settings = {"tile": max(1, AT_ONCE // block), "block": block, "num_warps": 4}
    return settings, x.numel() // width, width
