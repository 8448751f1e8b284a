"""Which views see which points of a cloud."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.geometry.projection import project
from vggt3.io.export.sampled_cloud import Cloud
from vggt3.types import Cameras


@dataclass(frozen=True, eq=False)
class Observations:
    """M sightings of points, ordered by view and then by point."""

    view: Tensor
    """[M] int64."""
    point: Tensor
    """[M] int64, places in the cloud."""
    pixels: Tensor
    """[M, 2] float64: x, y at the photo's original size, origin at its top-left corner."""

    own_error: float
    """Mean distance from the centre of the pixel that a point came from to the point's projection,
    in pixels of the photos: how well points, cameras and pixels fit each other."""

    def __len__(self) -> int:
        return self.view.shape[0]


def observe(
    cloud: Cloud,
    cameras: Cameras,  # V of them, at the photos' original sizes
    depths: Iterable[Tensor],  # V times [h, w] along z, scene units
    tolerance: float,
) -> Observations:
    """Sightings of a cloud's points in all views.

    A view sees the points that came from it, each at the centre of the pixel it came from. It
    also sees every other point that projects into it in front of the camera where the depth map
    agrees: |z − d| ≤ ``tolerance`` · d, d the depth of the pixel in which the projection lies.
    Such a sighting is placed at the projection itself, for nothing else is known of it.
    """
    checks.require(cloud.origin is not None, "cloud", "know where its points came from", "none")
    assert cloud.origin is not None
    points = cloud.xyz.double()
    found: list[tuple[Tensor, Tensor]] = []
    own_error = torch.zeros((), dtype=torch.float64)
    for index, depth in enumerate(depths):
        size = (depth.shape[0], depth.shape[1])
        own = cloud.origin[:, 0] == index
        pixels, seen = _agreeing(points, cameras, index, depth, tolerance)
        scale = _scale(cameras.sizes[index], size)
        place = cloud.origin[own, 1]
        centres = torch.stack([place % size[1], place // size[1]], dim=-1).double() + 0.5
        own_error += ((pixels[own] - centres) * scale).norm(dim=-1).sum()
        pixels[own] = centres
        which = torch.nonzero(seen | own).squeeze(-1)
        found.append((which, pixels[which] * scale))
    views = [torch.full_like(which, n) for n, (which, _) in enumerate(found)]
    return Observations(
        torch.cat(views),
        torch.cat([which for which, _ in found]),
        torch.cat([pixels for _, pixels in found]),
        float(own_error / max(len(cloud), 1)),
    )


def _agreeing(
    points: Tensor,  # [N, 3] world
    cameras: Cameras,
    index: int,
    depth: Tensor,  # [h, w]
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Projections [N, 2] in the depth map's pixels, and [N] whether the depth there agrees."""
    height, width = depth.shape
    intrinsics = cameras.intrinsics[index].double().clone()
    intrinsics[:2] /= _scale(cameras.sizes[index], (height, width))[:, None]
    pixels, z = project(points, intrinsics, cameras.camera_from_world[index].double())
    column, row = pixels.unbind(-1)
    # Behind the camera nothing agrees: z is below 0 there, and what is seen lies above it.
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    agrees = torch.zeros_like(inside)
    there = depth.double()[row[inside].long(), column[inside].long()]
    near = (z[inside] - there).abs() <= tolerance * there
    agrees[inside] = near & there.isfinite()  # all is near to what is infinitely far
    return pixels, agrees


def _scale(original: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """[2] x, y: pixels of the photo in one of the depth map."""
    return torch.tensor([original[1] / size[1], original[0] / size[0]], dtype=torch.float64)
