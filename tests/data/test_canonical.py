"""The CPU's pictures are an exam's fixed text: numbers that no change may move unannounced.

Where this fails, published scores no longer compare: a new version of the exam is due.
"""

from __future__ import annotations

import pytest
import torch

from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene

PINNED: dict[tuple[float, int], tuple[float, ...]] = {
    (0.0, 0): (0.42420, 0.12593, 3.00172, 1.77670, -1.40108, 1.13842, -0.15381),
    (0.0, 1): (0.35932, 0.17607, 2.40750, 0.93315, 0.16764, 0.12231, 0.36541),
    (1.0, 0): (0.35856, 0.23460, 5.25326, 5.40504, 3.91528, -0.16390, -2.15790),
    (1.0, 1): (0.39686, 0.13473, 6.10649, 6.72516, 4.59573, -0.68798, 3.86554),
}
"""(outdoors, index) → mean and deviation of the images, mean and deviation of the depth,
centre of the last camera in the first one's frame."""


@pytest.mark.parametrize("key", [(0.0, 0), (0.0, 1), (1.0, 0), (1.0, 1)])
def test_pictures_and_depth_are_pinned(key: tuple[float, int]) -> None:
    outdoors, index = key
    config = ProceduralConfig(views=3, size=(56, 56), outdoors=outdoors, abstract=0.0)
    batch = render(draw_scene(config, 2026, index), samples=4)
    depth = batch.depth[batch.valid]
    last = batch.camera_from_world[0, -1]
    centre = -(last[:, :3].T @ last[:, 3])
    found = torch.stack(
        [batch.images.mean(), batch.images.std(), depth.mean(), depth.std(), *centre]
    )
    torch.testing.assert_close(found, torch.tensor(PINNED[key]), atol=2e-4, rtol=2e-4)
