"""The kernels between the matrix products against the equations: interpreted on a CPU, compiled
on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.attention.variants import relative
from vggt3.attention.kernels import rows
from vggt3.attention.rope import Rope

pytest.importorskip("triton")

GPU = torch.cuda.is_available()
PLACE = torch.device(torch.cuda.current_device() if GPU else "cpu")
DTYPES = [torch.bfloat16, torch.float32]
LIMITS = {torch.bfloat16: 4e-3, torch.float32: 2e-6}
"""Relative L2 error against float64: the rounding of what is written."""


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=PLACE).to(dtype)


def norm_of(width: int, dtype: torch.dtype, eps: float = 1e-5) -> nn.LayerNorm:
    norm = nn.LayerNorm(width, eps=eps, device=PLACE)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    nn.init.normal_(norm.bias, 0.0, 0.3)
    return norm.to(dtype)


def wide(norm: nn.LayerNorm) -> nn.LayerNorm:
    made = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device=PLACE, dtype=torch.float64)
    made.load_state_dict(norm.state_dict())
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 192), (1, 1024), (5, 64), (0, 64)])
def test_residuals(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, mixed = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
    gamma, norm = draw(shape[-1], dtype=dtype), norm_of(shape[-1], dtype, 1e-6)
    if not x.numel():
        assert not rows.fused(x)
        return
    found = rows.launch_add_scaled(x, mixed, gamma)
    exact = x.double() + mixed.double() * gamma.double()
    assert found.dtype == dtype
    assert relative(found.double(), exact) < LIMITS[dtype]
    total, normed = rows.launch_add_norm(x, mixed, gamma, norm)
    with torch.no_grad():
        expected = rows.add_norm(x.double(), mixed.double(), gamma.double(), wide(norm))
    assert relative(total.double(), expected[0]) < LIMITS[dtype]
    assert relative(normed.double(), expected[1]) < 2 * LIMITS[dtype]


def test_what_is_added_may_be_narrower_than_the_tokens() -> None:
    """fp32 tokens beside bf16 products, as in the camera head."""
    x, mixed = draw(3, 64), draw(3, 64, dtype=torch.bfloat16)
    gamma, norm = draw(64), norm_of(64, torch.float32)
    total, normed = rows.launch_add_norm(x, mixed, gamma, norm)
    assert (total.dtype, normed.dtype) == (torch.float32, torch.bfloat16)
    with torch.no_grad():
        exact = rows.add_norm(x.double(), mixed.double(), gamma.double(), wide(norm))
    assert relative(total.double(), exact[0]) < LIMITS[torch.float32]
    assert relative(normed.double(), exact[1]) < LIMITS[torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width"), [(2, 32), (3, 64), (1, 128), (4, 16)])
@pytest.mark.parametrize("normed", [True, False])
def test_turn(heads: int, width: int, normed: bool, dtype: torch.dtype) -> None:
    grid, special = (2, 3), 5
    qkv = draw(3, special + 6, 3 * heads * width, dtype=dtype)
    rope = Rope.of_grid(grid, special, width, PLACE)
    exact = Rope.of_grid(grid, special, width, PLACE, torch.float64)
    with torch.no_grad():
        if normed:
            norms = norm_of(width, dtype), norm_of(width, dtype)
            q, k = rows.launch_turn(qkv, heads, rope, norms)
            wanted = rows.norm_turn(qkv.double(), heads, (wide(norms[0]), wide(norms[1])), exact)
        else:
            q, k = rows.launch_turn(qkv, heads, rope)
            wanted = rows.silu_turn(qkv.double(), heads, exact, torch.float64)
    for found, expected in zip((q, k), wanted, strict=True):
        assert found.shape == (3, special + 6, heads, width)
        assert relative(found.double(), expected) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize(("channels", "grid"), [(64, (3, 4)), (192, (1, 5)), (130, (4, 2))])
def test_convolve(channels: int, grid: tuple[int, int], side: int, dtype: torch.dtype) -> None:
    special, views = 2, 3
    qkv = draw(1, views, special + grid[0] * grid[1], 3 * channels, dtype=dtype)
    v = qkv[..., 2 * channels :]
    weight = draw(channels, 1, side, side, dtype=dtype)
    found = rows.launch_convolve(v, weight, special, grid)
    patches = v[:, :, special:].double().unflatten(2, grid).flatten(0, 1).permute(0, 3, 1, 2)
    mixed = nn.functional.conv2d(patches, weight.double(), padding=side // 2, groups=channels)
    mixed = mixed.flatten(2).transpose(1, 2).unflatten(0, (1, views))
    exact = nn.functional.silu(torch.cat([v[:, :, :special].double(), mixed], dim=2))
    assert relative(found.double(), exact) < LIMITS[dtype]


def test_what_is_differentiated_stays_with_the_equations() -> None:
    x = draw(2, 4, 64, dtype=torch.bfloat16)
    with torch.enable_grad():
        assert not rows.fused(x)
    with torch.no_grad():
        assert rows.fused(x) == GPU
        assert not rows.fused(x.float())
        assert not rows.fused(x[..., ::2])


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_gelu_in_the_product() -> None:
    x, weight, bias = (draw(*s, dtype=torch.bfloat16) for s in ((70, 64), (256, 64), (256,)))
    exact = [t.double() for t in (x, weight, bias)]
    with torch.no_grad():
        found = rows.linear_gelu(x, weight, bias)
        plain = nn.functional.gelu(nn.functional.linear(x, weight, bias))
        wanted = rows.linear_gelu(*exact)
    assert relative(found.double(), wanted) < 1.2 * relative(plain.double(), wanted)
