"""Views of a data set's scene at the size that a model sees: images, cameras, depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.parsing import same_proportions
from vggt3.data.readers.record import Need, Scene, View
from vggt3.io.resize import model_size, resized
from vggt3.types import Cameras


@dataclass(frozen=True)
class LoadedScene:
    """Some views of a scene, in the order that was asked for."""

    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of each view in the model; multiples of 14."""
    images: tuple[Tensor, ...]
    """[3, h, w] uint8 RGB each; none where they were not asked for."""
    poses: Tensor | None
    """[V, 3, 4] float64 camera_from_world in the scene's own world and unit."""
    intrinsics: Tensor | None
    """[V, 3, 3] float64 pixels at ``sizes``."""
    depth: tuple[Tensor, ...] | None
    """[h, w] float32 along z each, at ``sizes``; 0 is unknown."""

    @property
    def truth(self) -> Tensor:
        """The poses [V, 3, 4], where they were asked for."""
        assert self.poses is not None
        return self.poses


def load_views(
    scene: Scene,
    which: Sequence[int],
    long_side: int,
    needs: Sequence[Need] = (),
    size: tuple[int, int] | None = None,
    *,
    images: bool = True,
) -> LoadedScene:
    """Read views: whole images, resampled so that the longer side is ``long_side``.

    Depth is taken from the pixel that each pixel's centre falls into: depths are never mixed.
    ``size`` (height, width) gives all views that one size instead: of each the largest part of
    these proportions in its middle. Without ``images`` only ``needs`` is read.

    Raises:
        DataError: a view lacks one of ``needs`` or holds what it should not (says which).
    """
    scene.require(needs, which)
    views = [scene.views[index] for index in which]
    before = [view.size for view in views]
    after = [size or model_size(given, long_side) for given in before]
    parts = [_middle(at, size) for at in before]
    found = zip(views, parts, after, strict=True)
    photos = tuple(_image(view, *part, to) for view, part, to in found) if images else ()
    poses = intrinsics = depth = None
    if "pose" in needs:
        poses = torch.stack([view.pose() for view in views if view.pose is not None])
    if "intrinsics" in needs:
        k = torch.stack([view.intrinsics() for view in views if view.intrinsics is not None])
        corners = torch.tensor([[part[1].start, part[0].start] for part in parts])
        k[:, :2, 2] -= corners
        cut = tuple((rows.stop - rows.start, cols.stop - cols.start) for rows, cols in parts)
        given = Cameras(torch.eye(3, 4).expand(len(k), 3, 4), k, cut)
        intrinsics = given.resized(after).intrinsics
    if "depth" in needs:
        depth = tuple(
            _depth(view, at, size, to) for view, at, to in zip(views, before, after, strict=True)
        )
    names = tuple(view.name for view in views)
    return LoadedScene(names, tuple(after), photos, poses, intrinsics, depth)


def _middle(at: tuple[int, int], like: tuple[int, int] | None) -> tuple[slice, slice]:
    """Rows and columns of the largest part of an image, in its middle, with the proportions of
    ``like``; all of it where that is None."""
    height, width = at
    if like is None:
        return slice(0, height), slice(0, width)
    rows = min(height, max(1, round(width * like[0] / like[1])))
    columns = min(width, max(1, round(height * like[1] / like[0])))
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def _image(view: View, rows: slice, columns: slice, size: tuple[int, int]) -> Tensor:
    pixels = view.image()[:, rows, columns].permute(1, 2, 0).contiguous()
    small = np.array(resized(Image.fromarray(pixels.numpy()), size))
    return torch.from_numpy(small).permute(2, 0, 1).contiguous()


def _depth(
    view: View,
    stored: tuple[int, int],
    like: tuple[int, int] | None,
    size: tuple[int, int],
) -> Tensor:
    depth = view.depth_map()
    at = (depth.shape[0], depth.shape[1])
    checks.require(
        same_proportions(at, stored),
        f"depth of view {view.name}",
        f"have the proportions of its image, {stored[0]}×{stored[1]}",
        f"{at[0]}×{at[1]}",
        error=checks.DataError,
    )
    return nearest(depth[_middle(at, like)], size)


def nearest(
    depth: Tensor,  # [H, W]
    size: tuple[int, int],
) -> Tensor:
    """[h, w] of the pixels of ``depth`` that the new pixels' centres fall into."""
    rows, columns = (
        ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).long()
        for new, old in zip(size, depth.shape, strict=True)
    )
    return depth[rows[:, None], columns[None]]
