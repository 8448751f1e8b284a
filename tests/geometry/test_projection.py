"""Unprojection and projection are each other's inverse, in both pixel conventions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from vggt3.geometry.camera import pinhole
from vggt3.geometry.projection import pixel_grid, project, rays, unproject
from vggt3.geometry.rotation import random_rotation

SIZE = (5, 7)


def cameras(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rotation = random_rotation(shape, generator, torch.float64)
    translation = torch.randn(*shape, 3, 1, generator=generator, dtype=torch.float64)
    focal = torch.rand(*shape, generator=generator, dtype=torch.float64) * 4 + 4
    intrinsics = pinhole(focal, focal * 1.2, SIZE)
    intrinsics[..., 0, 2] += 0.7
    return torch.cat([rotation, translation], dim=-1), intrinsics


def test_grid_counts_along_width_then_height() -> None:
    grid = pixel_grid((2, 3), 0.5, torch.zeros(1))
    assert grid.shape == (2, 3, 2)
    assert grid[1, 2].tolist() == [2.5, 1.5]
    assert pixel_grid((2, 3), 0.0, torch.zeros(1))[1, 2].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("pixel_offset", [0.0, 0.5])
def test_projecting_what_was_unprojected(pixel_offset: float) -> None:
    pose, intrinsics = cameras((2, 3))
    depth = torch.rand(2, 3, *SIZE, dtype=torch.float64) + 0.5
    points = unproject(depth, intrinsics, pose, pixel_offset)
    assert points.shape == (2, 3, *SIZE, 3)
    pixels, back = project(points.flatten(-3, -2), intrinsics, pose)
    torch.testing.assert_close(back.reshape_as(depth), depth)
    grid = pixel_grid(SIZE, pixel_offset, depth).expand(2, 3, *SIZE, 2)
    torch.testing.assert_close(pixels.reshape_as(grid), grid)


def test_by_hand() -> None:
    intrinsics = torch.tensor([[2.0, 0, 1], [0, 4, 1], [0, 0, 1]])
    pose = torch.tensor([[0.0, -1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]])
    depth = torch.tensor([[2.0, 4.0], [6.0, 8.0]])
    points = unproject(depth, intrinsics, pose, 0.5)
    # Pixel (u, v) = (1.5, 0.5): camera point (0.25, -0.125, 1)·4 = (1, -0.5, 4), less t, turned.
    torch.testing.assert_close(points[0, 1], torch.tensor([-0.5, 0.0, 4.0]))
    pixels, back = project(torch.tensor([[-0.5, 0.0, 4.0]]), intrinsics, pose)
    torch.testing.assert_close(pixels, torch.tensor([[1.5, 0.5]]))
    torch.testing.assert_close(back, torch.tensor([4.0]))


def test_infinite_focal_length_gives_parallel_rays() -> None:
    intrinsics = pinhole(torch.tensor(torch.inf), torch.tensor(torch.inf), SIZE)
    directions = rays(intrinsics, SIZE, 0.5)
    assert directions.isfinite().all()
    assert (directions == torch.tensor([0.0, 0, 1])).all()


def test_gradients() -> None:
    pose, intrinsics = cameras((2,))
    depth = torch.rand(2, *SIZE, dtype=torch.float64) + 0.5
    inputs = [x.requires_grad_() for x in (depth, intrinsics, pose)]
    assert gradcheck(lambda d, k, p: unproject(d, k, p, 0.5), inputs)
    points = torch.randn(2, 4, 3, dtype=torch.float64)
    points = (
        points
        + 5 * pose.detach()[..., None, 2, :3]
        - (pose.detach()[..., :3].transpose(-1, -2) @ pose.detach()[..., 3:]).transpose(-1, -2)
    )
    assert gradcheck(
        lambda x, k, p: project(x, k, p), [points.requires_grad_(), inputs[1], inputs[2]]
    )
