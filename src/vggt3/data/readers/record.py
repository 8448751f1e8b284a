"""What every reader gives: scenes of views whose images, cameras and depth are read when asked.

A view's camera is camera-from-world in OpenCV axes, its intrinsics have their origin at the corner
of the top-left pixel, whatever the files say. Depth is along z in the scene's own unit, 0 where
it is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.parsing import read_rgb, size_of
from vggt3.types import Cameras

Loader = Callable[[], Tensor]
"""Reads one thing when called; can be pickled, so that workers may have it."""

Need = Literal["pose", "intrinsics", "depth"]


@dataclass(frozen=True)
class View:
    """One image and what is known of it; nothing is opened before it is asked for."""

    name: str
    """Distinct within its scene."""
    file: Path
    """The image as stored."""
    pose: Loader | None = None
    """() → [3, 4] float64 camera_from_world, OpenCV axes, the scene's unit."""
    intrinsics: Loader | None = None
    """() → [3, 3] float64 pixels at :attr:`size`, origin at the top-left pixel's corner."""
    depth: Loader | None = None
    """() → [h, w] float32 along z in the scene's unit, 0 unknown; of the image's proportions."""
    mask: Loader | None = None
    """() → [h, w] bool, the depth's size: where depth counts."""
    turns: int = 0
    """Quarter turns clockwise that the stored image still needs."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, turned; reads the file's header."""
        height, width = size_of(self.file)
        return (width, height) if self.turns % 2 else (height, width)

    def image(self) -> Tensor:
        """[3, H, W] uint8 RGB, turned."""
        stored = read_rgb(self.file)
        return torch.rot90(stored, -self.turns, (1, 2)) if self.turns % 4 else stored

    def depth_map(self) -> Tensor:
        """[h, w] float32, 0 where nothing is known or the mask leaves it out."""
        assert self.depth is not None
        depth = self.depth()
        depth = torch.where(depth.isfinite() & (depth > 0), depth, 0)
        if self.mask is None:
            return depth
        mask = self.mask()
        checks.require(
            mask.shape == depth.shape,
            f"mask of view {self.name}",
            f"have the depth's size {_by(depth)}",
            _by(mask),
            error=checks.DataError,
        )
        return torch.where(mask, depth, 0)

    def missing(self, needs: Sequence[Need]) -> list[str]:
        """Those of ``needs`` that this view does not have."""
        return [need for need in needs if getattr(self, need) is None]

    def unknown_depth(self) -> Tensor:
        """[H, W] float32 zeros: depth that says nothing."""
        return torch.zeros(self.size)


@dataclass(frozen=True)
class Scene:
    """Views of one place, in the order of their files."""

    dataset: str
    """The layout's name."""
    name: str
    """Distinct within its data set, such as ``chess/seq-03``."""
    views: tuple[View, ...]
    unit: str = "m"
    """Of poses and depth: m, mm, or "" where nobody knows."""
    notes: tuple[str, ...] = ()
    """What a person should know of these files."""

    def require(self, needs: Sequence[Need], which: Sequence[int]) -> None:
        """Raise :class:`~vggt3.checks.DataError` unless the views ``which`` have ``needs``."""
        for index in which:
            lacking = self.views[index].missing(needs)
            checks.require(
                not lacking,
                f"view {self.views[index].name} of {self.dataset} {self.name}",
                f"have {', '.join(needs)}",
                f"no {' and no '.join(lacking)}",
                error=checks.DataError,
            )

    def filled(self) -> Scene:
        """The scene with depth that says nothing in the views that have none."""
        views = (v if v.depth else replace(v, depth=v.unknown_depth, mask=None) for v in self.views)
        return replace(self, views=tuple(views))

    def cameras(self, which: Sequence[int] | None = None) -> Cameras:
        """float64 cameras of some views (all if not given) in the scene's own world."""
        chosen = range(len(self.views)) if which is None else which
        self.require(("pose", "intrinsics"), chosen)
        views = [self.views[index] for index in chosen]
        poses = [view.pose() for view in views if view.pose is not None]
        intrinsics = [view.intrinsics() for view in views if view.intrinsics is not None]
        return Cameras(
            torch.stack(poses), torch.stack(intrinsics), tuple(view.size for view in views)
        )


def _by(map_: Tensor) -> str:
    return "×".join(map(str, map_.shape))
