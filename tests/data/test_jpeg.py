"""JPEG's losses against Pillow's own files."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.jpeg import compressed
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene


def photo(height: int, width: int) -> Tensor:
    """[3, H, W] in whole levels: edges, gradients, grain."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rings = 0.5 + 0.5 * torch.sin((x - 40) ** 2 / 300 + (y - 20) ** 2 / 200)
    stripes = ((x + 2 * y) // 13 % 2).float()
    planes = torch.stack([rings, 0.3 + 0.4 * stripes, x / width])
    grain = 0.03 * torch.randn(planes.shape, generator=torch.Generator().manual_seed(0))
    return ((planes + grain).clamp(0, 1) * 255).round() / 255


def by_pillow(image: Tensor, quality: int) -> Tensor:
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("quality", [5, 20, 50, 80, 95])
def test_it_loses_what_a_jpeg_file_loses(quality: int) -> None:
    image = photo(75, 109)
    wanted = by_pillow(image, quality)
    got = compressed(image, torch.tensor(float(quality)))
    lost = float((wanted - image).abs().mean())
    assert float((got - wanted).abs().mean()) < max(0.25 * lost, 1.2 / 255)
    assert float((got - image).abs().mean()) == pytest.approx(lost, rel=0.05)


def test_each_image_has_its_own_quality() -> None:
    image = photo(28, 42)
    qualities = torch.tensor([[10.0, 90.0]])
    both = compressed(image.expand(1, 2, 3, 28, 42), qualities)
    for n in range(2):
        torch.testing.assert_close(both[0, n], compressed(image, qualities[0, n]))
    lost = (both - image).abs().mean((2, 3, 4))[0]
    assert float(lost[0]) > 1.5 * float(lost[1])


def test_photos_of_a_scene_are_compressed_where_it_is_asked_for() -> None:
    plain = ProceduralConfig(views=2, size=(28, 42), outdoors=0.0)
    packed = ProceduralConfig(views=2, size=(28, 42), outdoors=0.0, jpeg=(100, 100))
    before, after = (render(draw_scene(c, 0, 0), samples=1) for c in (plain, packed))
    assert torch.equal(before.depth, after.depth)
    light = torch.tensor([0.299, 0.587, 0.114])[:, None, None]  # colour is at half the resolution
    assert float(((before.images - after.images) * light).sum(2).abs().mean()) < 0.004
    rough = render(draw_scene(ProceduralConfig(views=2, size=(28, 42), jpeg=(5, 5)), 0, 0))
    assert rough.images.isfinite().all()
    steps = rough.images * 255
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
