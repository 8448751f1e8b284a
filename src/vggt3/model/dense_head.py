"""The dense heads (DPT, Ranftl 2021): four layers' tokens → a map at the image's size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from vggt3.model import maps
from vggt3.model.config import ModelConfig

EMBEDDING_SCALE = 0.1


class ResidualUnit(nn.Module):
    """With r = ReLU(x): conv2(ReLU(conv1(r))) + r. The residual is r, not x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, r: Tensor) -> Tensor:
        """The unit of an r."""
        return maps.conv_add(self.conv2, maps.conv_relu(self.conv1, r), r)


class Fusion(nn.Module):
    """Coarser map + residual(skip) → residual → resize → 1×1.

    Maps come as their ReLU, for no unit looks at anything else. The 1×1 stands before the resize:
    both are linear and a resize's weights add up to 1, so that the order is free, and there are a
    quarter of the pixels.
    """

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        if skip:
            self.residual1 = ResidualUnit(channels)
        self.residual2 = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def join(self, coarser: Tensor, skip: Tensor) -> Tensor:
        """ReLU of: what :meth:`resize` made of the coarser map and ``skip``, plus the rest of the
        residual of ``skip``."""
        inner = maps.conv_relu(self.residual1.conv1, skip)
        return maps.conv_add_relu(self.residual1.conv2, inner, coarser)

    def resize(self, r: Tensor, size: tuple[int, int], skip: Tensor | None) -> Tensor:
        """The residual of ``r`` at ``size``, plus ``skip``: the finer level's r, if any."""
        return maps.conv_upsample(self.out, self.residual2(r), size, skip)


class DenseHead(nn.Module):
    """A depth (1 channel) or a point (3) and a confidence per pixel, for each view by itself."""

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
        conv = _conv(self.projections, n)
        out = linear(self.norm(x), conv.weight.flatten(1), conv.bias)
        return out.transpose(1, 2).unflatten(2, grid)

    def forward(
        self,
        features: list[Tensor],  # four of [N, rows·columns, 2C], patch tokens of N views, or
        # of [N, S_n, rows, columns], projected
        grid: tuple[int, int],
        size: tuple[int, int],  # image height, width
    ) -> tuple[Tensor, Tensor]:
        """Depth [N, H, W] > 0 or points [N, H, W, 3], and confidence [N, H, W] ≥ 1, in fp32."""
        return self.finish(self.decode(features, grid, size))

    def finish(
        self,
        x: Tensor,  # [N, features/2, H, W]
    ) -> tuple[Tensor, Tensor]:
        """Values and confidence from what :meth:`decode` gave."""
        height, width = x.shape[-2:]
        where = maps.uv_embedding(height, width, x.shape[1], width / height, x)
        return maps.finish(self.output2, self.output3, x, EMBEDDING_SCALE * where[None])

    def decode(
        self,
        features: list[Tensor],  # four of [N, rows·columns, 2C], or projected
        grid: tuple[int, int],
        size: tuple[int, int],
    ) -> Tensor:
        """All up to the image's size, the same for every head: [N, features/2, H, W]."""
        aspect = size[1] / size[0]
        levels = [self._level(n, x, grid, aspect) for n, x in enumerate(features)]
        x = levels[3]
        for n in (3, 2, 1):
            skip = levels[n - 1]
            x = self._fusion(n).resize(x, (skip.shape[-2], skip.shape[-1]), skip)
            x = self._fusion(n - 1).join(x, skip)
        finest = (2 * x.shape[-2], 2 * x.shape[-1])
        x = self._fusion(0).resize(x, finest, None)
        return maps.conv_upsample(self.output1, x, size)

    def _level(self, n: int, x: Tensor, grid: tuple[int, int], aspect: float) -> Tensor:
        """Tokens of one layer → the ReLU of a map of the common width at its own resolution."""
        x = self.project(n, x, grid) if x.dim() == 3 else x
        x = x + EMBEDDING_SCALE * maps.uv_embedding(*grid, x.shape[1], aspect, x)
        return maps.conv_relu(_conv(self.reassembles, n), self.resizes[n](x))

    def _fusion(self, n: int) -> Fusion:
        found = self.fusions[n]
        assert isinstance(found, Fusion)
        return found


def _conv(layers: nn.ModuleList, n: int) -> nn.Conv2d:
    found = layers[n]
    assert isinstance(found, nn.Conv2d)
    return found
