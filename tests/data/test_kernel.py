"""The fused renderer against the plain one: interpreted on a CPU, compiled where there is a GPU."""

from __future__ import annotations

import pytest
import torch

from vggt3.checks import UsageError
from vggt3.data.procedural.bank import SIDE, build
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import kernel_reason, render
from vggt3.data.procedural.scene import SceneBatch, SceneParameters, collate
from vggt3.data.procedural.scenes import draw_scene

GPU = torch.device("cuda") if torch.cuda.is_available() else None  # type: ignore[unreachable]


def scenes(size: tuple[int, int], views: int = 1, **knobs: object) -> SceneParameters:
    """A room and a yard."""
    drawn = [
        draw_scene(
            ProceduralConfig(views=views, size=size, outdoors=share, abstract=0, **knobs),  # type: ignore[arg-type]
            12,
            1,
        )
        for share in (0.0, 1.0)
    ]
    return collate(drawn)


def compare(got: SceneBatch, wanted: SceneBatch) -> None:
    """Equal but for single pixels, where a cell's or a solid's edge falls to the other side."""
    apart = (got.images - wanted.images).abs().amax(2)
    assert float((apart > 2e-3).float().mean()) < 0.01
    assert float(apart.mean()) < 2e-4
    relative = (got.depth - wanted.depth).abs() / wanted.depth.clamp(min=0.1)
    assert float((relative > 1e-5).float().mean()) < 0.002
    assert torch.equal(got.intrinsics, wanted.intrinsics)


@pytest.fixture
def device() -> torch.device:
    device = torch.device("cpu") if GPU is None else GPU
    reason = kernel_reason(device)
    if reason is not None:
        pytest.skip(reason)
    return device


def on_host(batch: SceneBatch) -> SceneBatch:
    return SceneBatch(
        batch.images.cpu(), batch.depth.cpu(), batch.valid.cpu(),
        batch.camera_from_world.cpu(), batch.intrinsics.cpu(),
    )  # fmt: skip


@pytest.mark.parametrize(("samples", "size"), [(1, (14, 28)), (4, (14, 14))])
def test_kernels_equal_the_plain_renderer(
    samples: int, size: tuple[int, int], device: torch.device
) -> None:
    drawn = scenes(size)
    wanted = render(drawn, None, samples, "torch")
    got = render(drawn.to(device), None, samples, "triton")
    compare(on_host(got), wanted)


def test_kernels_show_the_photos_of_the_bank(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 16, 16, generator=generator)
    bank = build(torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear"))
    drawn = scenes((14, 14), photos=1.0, bank=2)
    wanted = render(drawn, bank, 1, "torch")
    got = render(drawn.to(device), bank.to(device), 1, "triton")
    compare(on_host(got), wanted)
    assert not torch.allclose(wanted.images, render(drawn, None, 1, "torch").images, atol=0.02)


@pytest.mark.skipif(GPU is None, reason="needs a GPU")
def test_kernels_equal_the_plain_renderer_at_full_size() -> None:
    assert GPU is not None
    drawn = scenes((168, 168), views=8)
    compare(on_host(render(drawn.to(GPU), None, 4, "triton")), render(drawn, None, 4, "torch"))


def test_a_renderer_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UsageError, match=r"renderer must be able to run here, got 'triton'"):
        render(scenes((14, 14)), None, 1, "triton")
    with pytest.raises(UsageError, match="samples must be 1 or 4, got 3"):
        render(scenes((14, 14)), None, 3)
