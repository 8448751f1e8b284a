"""What happens to images and maps between products: one kernel each on a GPU.

A convolution's bias, ReLU and the map that is added to it ride along with the convolution (cuDNN)
or with the resize that follows (Triton); torch's own bilinear resize of channels-last maps ran at
a tenth of an H100's bandwidth. The functions are the equations; where nothing is differentiated
and maps are bf16, channels last, on a CUDA device, they take the kernels.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, linear, relu

from vggt3.attention.kernels import rows
from vggt3.types import PATCH

AT_ONCE = 4096
"""Numbers of one program of a kernel, about."""
PADDED = 592
"""3·14·14 pixels of a patch, up to the next multiple of 16: products want whole lines."""


def fused(x: Tensor) -> bool:
    """Whether the kernels may take a map [N, C, H, W]: channels last, and as rows are."""
    return rows.fused(x.permute(0, 2, 3, 1))


def suits(conv: nn.Conv2d, *maps: Tensor | None) -> bool:
    """Whether the kernels may take these maps through ``conv``: its weights are of their dtype
    too, as they are not where autocast makes bf16 maps beside fp32 weights."""
    return all(x is None or (fused(x) and conv.weight.dtype == x.dtype) for x in maps)


def conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """ReLU(conv(x))."""
    if suits(conv, x):
        return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *_shape(conv))
    return relu(conv(x))


def conv_add_relu(conv: nn.Conv2d, x: Tensor, z: Tensor) -> Tensor:
    """ReLU(conv(x) + z)."""
    if suits(conv, x, z):
        found: Tensor = torch.cudnn_convolution_add_relu(
            x, conv.weight, z, 1.0, conv.bias, *_shape(conv)
        )
        return found
    return relu(conv(x) + z)


def conv_add(conv: nn.Conv2d, x: Tensor, z: Tensor) -> Tensor:
    """conv(x) + z."""
    if suits(conv, x, z):
        assert conv.bias is not None
        return launch_add_bias(_without_bias(conv, x), conv.bias, z)
    out: Tensor = conv(x) + z
    return out


def conv_upsample(
    conv: nn.Conv2d, x: Tensor, size: tuple[int, int], add: Tensor | None = None
) -> Tensor:
    """conv(x), bilinear with aligned corners to ``size``, plus ``add``."""
    if suits(conv, x, add):
        assert conv.bias is not None
        return launch_upsample(_without_bias(conv, x), size, conv.bias, add)
    out = upsample(conv(x), size)
    return out if add is None else out + add


def finish(
    conv: nn.Conv2d,
    last: nn.Conv2d,
    x: Tensor,  # [N, C, H, W]
    where: Tensor,  # [1, C, H, W]
) -> tuple[Tensor, Tensor]:
    """last(ReLU(conv(x + where))) in fp32 or wider, activated: of two channels depth [N, H, W] =
    exp, of four points [N, H, W, 3] = sign·(exp|·| - 1); and confidence [N, H, W] = 1 + exp.

    ``where`` passes through the convolution by itself, once for all views.
    """
    shift = conv(where)  # [1, E, H, W], the bias with it
    x = _without_bias(conv, x)
    if suits(conv, x):
        return launch_finish(x, shift, last)
    raw: Tensor = last(relu(x + shift).to(last.weight.dtype))
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    values, confidence = raw[:, :-1], 1 + raw[:, -1].exp()
    if values.shape[1] == 1:
        return values[:, 0].exp(), confidence
    return (values.sign() * values.abs().expm1()).movedim(1, -1), confidence


def patch_rows(
    images: Tensor,  # [N, 3, H, W] float in [0, 1] or uint8
    conv: nn.Conv2d,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
) -> Tensor:
    """Each patch's token before its position is added: [N, patches, E]."""
    dtype = conv.weight.dtype
    wide = torch.promote_types(dtype, torch.float32)
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    if rows.fused(conv.weight.detach().flatten(1)) and images.is_contiguous() and images.numel():
        pixels = launch_patches(images, 1 / scale, mean, deviation)
        weight = nn.functional.pad(conv.weight.flatten(1), (0, PADDED - 3 * PATCH * PATCH))
        return linear(pixels, weight, conv.bias)
    # Filled on the device: numbers sent to it would wait for all that it has yet to do.
    middle, spread = (
        torch.stack([images.new_full((), s, dtype=wide) for s in statistic])[:, None, None]
        for statistic in (mean, deviation)
    )
    found: Tensor = conv(((images.to(wide) / scale - middle) / spread).to(dtype))
    return found.flatten(2).transpose(1, 2)


class _Upsample(torch.autograd.Function):
    """Bilinear with aligned corners; its gradient as two products with banded matrices.

    torch scatters the gradient with atomic additions: on an H100 that was a fifth of a training
    step, and never twice the same. The products are 15 times faster there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.source = (x.shape[-2], x.shape[-1])
        return interpolate(x, size=size, mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        lines, columns = ctx.source
        # As [N, H, W, C], the way the maps lie in memory on a GPU.
        given = gradient.permute(0, 2, 3, 1)
        across = line_weights(columns, given.shape[2], given).T @ given
        down = line_weights(lines, given.shape[1], given).T @ across.flatten(2)
        return down.unflatten(2, (columns, -1)).permute(0, 3, 1, 2), None


def line_weights(source: int, target: int, like: Tensor) -> Tensor:
    """[target, source] weights of linear interpolation with aligned corners."""
    wide = torch.promote_types(like.dtype, torch.float32)
    steps = max(1, target - 1)  # places in whole numbers of 1/steps: exact
    place = torch.arange(target, device=like.device) * (source - 1)
    known = torch.arange(source, device=like.device) * steps
    away = (place[:, None] - known).abs().to(wide) / steps
    return (1 - away).clamp(min=0).to(like.dtype)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners."""
    out: Tensor = _Upsample.apply(x, size)  # type: ignore[no-untyped-call]
    return out


def uv_embedding(
    rows: int,
    columns: int,
    channels: int,
    aspect: float,  # image width / height
    like: Tensor,
) -> Tensor:
    """Sines and cosines of an aspect-true grid: [channels, rows, columns].

    u spans ±aspect/diag·(w-1)/w and v ±1/diag·(h-1)/h with diag = √(aspect²+1); half the
    channels are u's, half v's, each [sin, cos] of position · 100^(-i/(E/2)), E = channels/2.
    """
    made = (rows, columns, channels, aspect, like.device, like.dtype)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or _on_a_side(like.device):
        return _embed(*made)
    return _known_embedding(*made)


def _embed(
    rows: int,
    columns: int,
    channels: int,
    aspect: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    diagonal = (aspect * aspect + 1) ** 0.5
    wide = torch.promote_types(dtype, torch.float32)

    def line(span: float, count: int) -> Tensor:
        edge = span / diagonal * (count - 1) / count
        return torch.linspace(-edge, edge, count, device=device, dtype=wide)

    steps = torch.arange(channels // 4, device=device, dtype=wide)
    frequency = 100.0 ** (-steps / (channels / 4))

    def waves(position: Tensor) -> Tensor:
        angle = position[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1).to(dtype)  # [count, channels/2]

    u = waves(line(aspect, columns)).expand(rows, -1, -1)
    v = waves(line(1.0, rows))[:, None, :].expand(-1, columns, -1)
    return torch.cat([u, v], dim=2).permute(2, 0, 1)  # channels last in memory, as the maps


def _on_a_side(device: torch.device) -> bool:
    """Whether work goes to another stream than the device's first: the only one whose order says
    when a known embedding is there, and when its memory may be used again. Recordings (CUDA
    graphs) are made on others, so that they hold embeddings of their own."""
    if device.type != "cuda":
        return False
    return torch.cuda.current_stream(device) != torch.cuda.default_stream(device)


_known_embedding = functools.lru_cache(maxsize=16)(_embed)
"""The last few, which every chunk asks for again; a pure function of numbers."""


def launch_upsample(
    x: Tensor,  # [N, C, h, w]
    size: tuple[int, int],
    bias: Tensor,  # [C]
    add: Tensor | None = None,  # [N, C, H, W]
) -> Tensor:
    """The kernel of :func:`upsample`, with a bias and another map added."""
    from vggt3.model import maps_triton

    count, channels, *source = x.shape
    out = x.new_empty(count, *size, channels).permute(0, 3, 1, 2)
    block, tile = _blocks(channels)
    with torch.cuda.device_of(x):
        maps_triton.upsample[count * size[0], -(-size[1] // tile)](
            x, bias, out if add is None else add, out, *source, *size, channels,
            added=add is not None, tile=tile, block=block, num_warps=4,
        )  # fmt: skip
    return out


def launch_add_bias(x: Tensor, bias: Tensor, add: Tensor) -> Tensor:
    """x + bias + add of maps [N, C, H, W]."""
    from vggt3.model import maps_triton

    out, channels = torch.empty_like(x), x.shape[1]
    count = x.numel() // channels
    block, tile = _blocks(channels)
    with torch.cuda.device_of(x):
        maps_triton.add_bias[(-(-count // tile),)](
            x, bias, add, out, count, channels, tile=tile, block=block, num_warps=4
        )
    return out


def launch_finish(x: Tensor, shift: Tensor, last: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """The kernel of :func:`finish`: x [N, E, H, W] and shift [1, E, H, W], channels last."""
    from vggt3.model import maps_triton

    count, channels, height, width = x.shape
    assert last.bias is not None
    outputs = last.weight.shape[0] - 1
    confidence = x.new_empty(count, height, width, dtype=torch.float32)
    shape = (count, height, width) if outputs == 1 else (count, height, width, outputs)
    values = x.new_empty(shape, dtype=torch.float32)
    shift = shift.contiguous(memory_format=torch.channels_last)
    block, tile = _blocks(channels)
    pixels = height * width
    with torch.cuda.device_of(x):
        maps_triton.finish[(-(-count * pixels // tile),)](
            x, shift, last.weight, last.bias, values, confidence, count * pixels, pixels, channels,
            outputs=outputs, tile=tile, block=block, num_warps=4,
        )  # fmt: skip
    return values, confidence


def launch_patches(
    images: Tensor,
    scale: float,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Normalised pixels of each patch, zeros behind them: [N, patches, 592]."""
    from vggt3.model import maps_triton

    number, _, height, width = images.shape
    each = (height // PATCH) * (width // PATCH)
    out = images.new_empty(number, each, PADDED, dtype=dtype)
    tile, block = 32, 128
    with torch.cuda.device_of(images):
        maps_triton.patches[-(-number * each // tile), -(-PADDED // block)](
            images, out, number * each, height, width, scale, *mean, *deviation,
            side=PATCH, padded=PADDED, tile=tile, block=block, num_warps=4,
        )  # fmt: skip
    return out


def _blocks(channels: int) -> tuple[int, int]:
    block = 1 << (channels - 1).bit_length()
    return block, max(1, AT_ONCE // block)


def _shape(conv: nn.Conv2d) -> tuple[Any, Any, Any, int]:
    return conv.stride, conv.padding, conv.dilation, conv.groups


def _without_bias(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return conv2d(x, conv.weight, None, *_shape(conv))
