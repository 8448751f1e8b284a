"""The kernels on images and maps against the equations: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from tests.attention.variants import relative
from vggt3.attention.kernels import rows
from vggt3.model import maps
from vggt3.model.config import TINY
from vggt3.model.dense_head import DenseHead
from vggt3.model.encoder import DEVIATION, MEAN

pytest.importorskip("triton")

GPU = torch.cuda.is_available()
PLACE = torch.device(torch.cuda.current_device() if GPU else "cpu")
LIMITS = {torch.bfloat16: 4e-3, torch.float32: 2e-6}
"""Relative L2 error against float64: the rounding of what is written."""


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    made = torch.randn(*shape, device=PLACE).to(dtype)
    return made.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(
    ("source", "target"), [((6, 7), (12, 13)), ((1, 5), (3, 9)), ((4, 4), (4, 4)), ((5, 3), (1, 1))]
)
def test_upsample(
    source: tuple[int, int], target: tuple[int, int], added: bool, dtype: torch.dtype
) -> None:
    x, bias = draw(2, 24, *source, dtype=dtype), draw(24, dtype=dtype)
    add = draw(2, 24, *target, dtype=dtype) if added else None
    found = maps.launch_upsample(x, target, bias, add)
    exact = maps.upsample(x.double(), target) + bias.double()[:, None, None]
    exact = exact if add is None else exact + add.double()
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert relative(found.double(), exact) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_adding_and_finishing(dtype: torch.dtype) -> None:
    x, add, bias = draw(3, 20, 4, 5, dtype=dtype), draw(3, 20, 4, 5, dtype=dtype), draw(20)
    found = maps.launch_add_bias(x, bias, add)
    exact = x.double() + add.double() + bias.double()[:, None, None]
    assert relative(found.double(), exact) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_finishing(channels: int, dtype: torch.dtype) -> None:
    """From what was read on in fp32, the smallest values' relative precision with it."""
    last = nn.Conv2d(20, channels + 1, 1, device=PLACE)
    nn.init.normal_(last.bias, std=1e-3)  # type: ignore[arg-type]
    last.weight.data[-2] *= 1e-4
    x, shift = draw(3, 20, 4, 5, dtype=dtype), draw(1, 20, 4, 5, dtype=dtype)
    values, confidence = maps.launch_finish(x, shift, last)
    exact = relu(x.double() + shift.double())
    assert last.bias is not None
    exact = conv2d(exact, last.weight.double(), last.bias.double())
    assert relative(confidence.double(), 1 + exact[:, -1].exp()) < 2e-6
    points = exact[:, :-1].sign() * exact[:, :-1].abs().expm1()
    wanted = exact[:, 0].exp() if channels == 1 else points.movedim(1, -1)
    assert values.dtype == torch.float32
    assert relative(values.double(), wanted) < 2e-6
    if channels == 3:
        assert relative(values[..., 2].double(), wanted[..., 2]) < 2e-6


@pytest.mark.parametrize("whole", [True, False])
def test_patches(whole: bool) -> None:
    size = (2, 3, 28, 42)
    images = torch.randint(0, 256, size, dtype=torch.uint8) if whole else torch.rand(size)
    images = images.to(PLACE)
    conv = nn.Conv2d(3, 32, 14, stride=14, device=PLACE).double()
    wanted = maps.patch_rows(images, conv, MEAN, DEVIATION)
    scale = 1 / 255 if whole else 1.0
    found = maps.launch_patches(images, scale, MEAN, DEVIATION, torch.float32)
    assert not found[..., 588:].any()
    products = found[..., :588].double() @ conv.weight.flatten(1).T + conv.bias
    assert relative(products, wanted) < 2e-6


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels' road on a CPU, with plain torch where the road takes cuDNN."""

    def road(*tensors: Tensor) -> bool:
        return not torch.is_grad_enabled() and all(x.is_contiguous() for x in tensors)

    def conv_relu(x: Tensor, weight: Tensor, bias: Tensor | None, *shape: object) -> Tensor:
        return relu(conv2d(x, weight, bias, *shape))

    def conv_add_relu(
        x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor, *shape: object
    ) -> Tensor:
        return relu(conv2d(x, weight, bias, *shape) + alpha * z)

    if not GPU:
        monkeypatch.setattr(rows, "fused", road)
        monkeypatch.setattr(torch, "cudnn_convolution_relu", conv_relu)
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", conv_add_relu)
    yield


@pytest.mark.usefixtures("forced")
def test_maps_and_weights_of_two_dtypes_stay_with_the_equations() -> None:
    """As in a validation under autocast: cuDNN has nothing for them."""
    x = draw(1, 8, 4, 4, dtype=torch.bfloat16)
    conv = nn.Conv2d(8, 8, 3, padding=1, device=PLACE).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert not maps.suits(conv, x)
        assert maps.suits(conv.bfloat16(), x, None)
        with torch.autocast(PLACE.type, torch.bfloat16):
            assert maps.conv_relu(conv.float(), x).isfinite().all()


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("channels", [1, 3])
def test_a_head_by_kernels_is_the_head(channels: int) -> None:
    """Random weights of every kind; in fp32 on a CPU, bf16 on a GPU, against float64."""
    head = DenseHead(TINY, channels).to(PLACE)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.05 if parameter.dim() > 1 else 0.3)
    grid, size = (2, 3), (28, 42)
    dtype = torch.bfloat16 if GPU else torch.float32
    features = [draw(2, 6, 2 * TINY.width, dtype=dtype) for _ in range(4)]
    exact = DenseHead(TINY, channels).to(PLACE).double()
    exact.load_state_dict(head.state_dict())
    head = head.to(dtype=dtype, memory_format=torch.channels_last)
    head.output3.float()
    with torch.no_grad():
        found = head(features, grid, size)
    with torch.enable_grad():  # by the equations
        wanted = exact([x.double() for x in features], grid, size)
    for got, expected in zip(found, wanted, strict=True):
        assert relative(got.double(), expected.detach()) < (2e-2 if GPU else 1e-5)
