"""The dense heads (DPT, Ranftl 2021): four layers' tokens → a map at the image's size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from vggt3.model.config import ModelConfig

EMBEDDING_SCALE = 0.1


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
    diagonal = (aspect * aspect + 1) ** 0.5
    wide = torch.promote_types(like.dtype, torch.float32)

    def line(span: float, count: int) -> Tensor:
        edge = span / diagonal * (count - 1) / count
        return torch.linspace(-edge, edge, count, device=like.device, dtype=wide)

    steps = torch.arange(channels // 4, device=like.device, dtype=wide)
    frequency = 100.0 ** (-steps / (channels / 4))

    def waves(position: Tensor) -> Tensor:
        angle = frequency[:, None] * position
        return torch.cat([angle.sin(), angle.cos()])  # [channels/2, count]

    u = waves(line(aspect, columns))[:, None, :].expand(-1, rows, -1)
    v = waves(line(1.0, rows))[:, :, None].expand(-1, -1, columns)
    return torch.cat([u, v]).to(like.dtype)


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
        rows, columns = ctx.source
        # As [N, H, W, C], the way the maps lie in memory on a GPU.
        given = gradient.permute(0, 2, 3, 1)
        across = line_weights(columns, given.shape[2], given).T @ given
        down = line_weights(rows, given.shape[1], given).T @ across.flatten(2)
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


class ResidualUnit(nn.Module):
    """With r = ReLU(x): conv2(ReLU(conv1(r))) + r. The residual is r, not x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(x)
        out: Tensor = self.conv2(relu(self.conv1(x))) + x
        return out


class Fusion(nn.Module):
    """Coarser map + residual(skip) → residual → resize → 1×1."""

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        if skip:
            self.residual1 = ResidualUnit(channels)
        self.residual2 = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        if skip is not None:
            x = x + self.residual1(skip)
        out: Tensor = self.out(upsample(self.residual2(x), size))
        return out


class DenseHead(nn.Module):
    """``channels`` values and a confidence ≥ 1 per pixel, for each view by itself."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        sizes, features = config.dense_projections, config.dense_features
        self.norm = nn.LayerNorm(2 * config.width)
        self.projections = nn.ModuleList(nn.Conv2d(2 * config.width, s, 1) for s in sizes)
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(sizes[0], sizes[0], 4, stride=4),
                nn.ConvTranspose2d(sizes[1], sizes[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(sizes[3], sizes[3], 3, stride=2, padding=1),
            ]
        )
        self.reassembles = nn.ModuleList(
            nn.Conv2d(s, features, 3, padding=1, bias=False) for s in sizes
        )
        self.fusions = nn.ModuleList(Fusion(features, skip=n < 3) for n in range(4))
        self.output1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output2 = nn.Conv2d(features // 2, config.dense_output, 3, padding=1)
        self.output3 = nn.Conv2d(config.dense_output, channels + 1, 1)

    def project(
        self,
        n: int,
        x: Tensor,  # [N, rows·columns, 2C]
        grid: tuple[int, int],
    ) -> Tensor:
        """The n-th of the four features as far as its 1×1: [N, S_n, rows, columns]."""
        normed = self.norm(x).transpose(1, 2).unflatten(2, grid)  # [N, 2C, rows, columns]
        out: Tensor = self.projections[n](normed)
        return out

    def forward(
        self,
        features: list[Tensor],  # four of [N, rows·columns, 2C], patch tokens of N views, or
        # of [N, S_n, rows, columns], projected
        grid: tuple[int, int],
        size: tuple[int, int],  # image height, width
    ) -> tuple[Tensor, Tensor]:
        """Raw values [N, channels, H, W] in fp32, and confidence [N, H, W] = 1 + exp."""
        x = self.output3(self.decode(features, grid, size))
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x[:, :-1], 1 + x[:, -1].exp()

    def decode(
        self,
        features: list[Tensor],  # four of [N, rows·columns, 2C], or projected
        grid: tuple[int, int],
        size: tuple[int, int],
    ) -> Tensor:
        """All but the last 1×1, which alone knows what the map is of: [N, E, H, W]."""
        aspect = size[1] / size[0]
        levels = [self._level(n, x, grid, aspect) for n, x in enumerate(features)]
        x, skip = levels[3], None
        for n in (3, 2, 1, 0):
            height, width = levels[n].shape[-2:]
            finer = (2 * height, 2 * width) if n == 0 else tuple(levels[n - 1].shape[-2:])
            x = self.fusions[n](x, skip, finer)
            skip = levels[n - 1] if n else None
        x = upsample(self.output1(x), size)
        x = x + EMBEDDING_SCALE * uv_embedding(*size, x.shape[1], aspect, x)
        return relu(self.output2(x))

    def _level(self, n: int, x: Tensor, grid: tuple[int, int], aspect: float) -> Tensor:
        """Tokens of one layer → a map of the common width at its own resolution."""
        x = self.project(n, x, grid) if x.dim() == 3 else x
        x = x + EMBEDDING_SCALE * uv_embedding(*grid, x.shape[1], aspect, x)
        out: Tensor = self.reassembles[n](self.resizes[n](x))
        return out


def activate_depth(raw: Tensor) -> Tensor:
    """[N, 1, H, W] → depth [N, H, W] > 0."""
    return raw[:, 0].exp()


def activate_points(raw: Tensor) -> Tensor:
    """[N, 3, H, W] → points [N, H, W, 3] in the world frame: sign(x)·(exp|x| - 1)."""
    return (raw.sign() * raw.abs().expm1()).movedim(1, -1)
