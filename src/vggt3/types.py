"""What travels between the rooms of the house: views in, cameras and dense maps out.

Conventions (all of vggt3): image size is height, width; cameras are OpenCV (x right, y down,
z forward); the world frame is the first view's camera frame; depth is along z.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vggt3 import checks

PATCH = 14
"""Side of a patch in pixels: every image size inside the model is a multiple of it."""


def even_pieces(count: int, most: int) -> list[int]:
    """Sizes of the fewest pieces of ``count`` things, at most ``most`` in one, that differ by at
    most 1, larger ones first; one piece of none where there is nothing."""
    pieces = max(1, -(-count // most))
    base, extra = divmod(count, pieces)
    return [base + (n < extra) for n in range(pieces)]


@dataclass(frozen=True)
class ViewGroup:
    """Views of one image size (one patch grid). A scene is one or more groups."""

    images: Tensor
    """[B, V_g, 3, H, W] RGB, float in [0, 1] or uint8 in [0, 255]; H, W multiples of 14."""
    ids: tuple[int, ...]
    """V_g places of these views in the scene's order; the scene's first view is id 0."""
    weight: Tensor | None = None
    """[B, V_g, H/14, W/14] write weight of each patch in [0, 1]; 0 is absence. None is all 1."""

    def __post_init__(self) -> None:
        sizes = checks.shape_of("images", tuple(self.images.shape), "B V 3 H W")
        height, width = sizes["H"], sizes["W"]
        checks.require(
            height % PATCH == 0 and width % PATCH == 0 and height > 0 and width > 0,
            "image height and width",
            f"be positive multiples of {PATCH}",
            f"{height}×{width}",
        )
        checks.require(
            len(self.ids) == sizes["V"], "ids", f"name {sizes['V']} views", len(self.ids)
        )
        if self.weight is not None:
            wanted = (sizes["B"], sizes["V"], *self.grid)
            checks.require(
                tuple(self.weight.shape) == wanted,
                "weight",
                f"have shape {list(wanted)}",
                list(self.weight.shape),
            )

    @property
    def size(self) -> tuple[int, int]:
        """Image height and width in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.images.shape[-2] // PATCH, self.images.shape[-1] // PATCH

    def chunks(self, views: int) -> Iterator[ViewGroup]:
        """The group in pieces of at most ``views`` views, as even as can be, in order."""
        stop = 0
        for size in even_pieces(len(self.ids), views):
            start, stop = stop, stop + size
            weight = None if self.weight is None else self.weight[:, start:stop]
            yield ViewGroup(self.images[:, start:stop], self.ids[start:stop], weight)


@dataclass(frozen=True)
class Views:
    """The photos of a scene (or one rank's share of them), grouped by image size."""

    groups: tuple[ViewGroup, ...]
    total: int
    """V: the number of views in the whole scene, other ranks' included."""

    def __post_init__(self) -> None:
        ids = self.ids
        checks.require(self.total >= 1, "views", "hold at least one view", self.total)
        checks.require(bool(self.groups), "views", "hold at least one group", "none")
        checks.require(
            len(set(ids)) == len(ids) and all(0 <= i < self.total for i in ids),
            "view ids",
            f"be distinct and in 0..{self.total - 1}",
            list(ids),
        )
        weighted = {group.weight is not None for group in self.groups}
        checks.require(len(weighted) <= 1, "weight", "be given for all groups or none", "some")

    @classmethod
    def from_tensor(cls, images: Tensor) -> Views:
        """Views of one size: ``images`` is [B, V, 3, H, W] (or [V, 3, H, W] for one scene)."""
        images = images.unsqueeze(0) if images.dim() == 4 else images
        count = images.shape[1] if images.dim() > 1 else 0
        return cls((ViewGroup(images, tuple(range(count))),), count)

    @classmethod
    def from_list(cls, images: Sequence[Tensor]) -> Views:
        """One scene of photos [3, H, W] of any sizes, grouped by size in order of appearance."""
        return cls(_by_size(images, range(len(images))), len(images))

    @classmethod
    def from_share(
        cls, images: Sequence[Tensor], ids: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> Views:
        """One process's share of a scene of photos of ``sizes`` (height, width): ``images``
        [3, H, W] are those with ``ids``. May be none; see :meth:`shard`."""
        order = list(dict.fromkeys(sizes))  # of all groups, as in one process
        groups = sorted(_by_size(images, ids), key=lambda group: order.index(group.size))
        empty = torch.empty(1, 0, 3, *sizes[0], dtype=torch.uint8)
        return cls(tuple(groups) or (ViewGroup(empty, ()),), len(sizes))

    @property
    def ids(self) -> tuple[int, ...]:
        """Scene positions of the views held here, in the order of the groups."""
        return tuple(i for group in self.groups for i in group.ids)

    @property
    def batch(self) -> int:
        """B: scenes side by side."""
        return self.groups[0].images.shape[0]

    def chunked(self, views: int) -> Views:
        """The same views with every group cut into groups of at most ``views``."""
        pieces = tuple(piece for group in self.groups for piece in group.chunks(views))
        return replace(self, groups=pieces)

    def shard(self, start: int, stop: int) -> Views:
        """The views with start ≤ id < stop (one rank's share); ``total`` stays.

        A share without views keeps one group of none, so that its rank writes zeros and reads
        nothing but takes part in every sum.
        """
        shares = []
        for group in self.groups:
            keep = [n for n, i in enumerate(group.ids) if start <= i < stop]
            weight = None if group.weight is None else group.weight[:, keep]
            ids = tuple(group.ids[n] for n in keep)
            shares.append(ViewGroup(group.images[:, keep], ids, weight))
        held = tuple(share for share in shares if share.ids)
        return replace(self, groups=held or tuple(shares[:1]))

    def to(self, device: torch.device | str) -> Views:
        """The same views with images and weights on ``device``."""
        groups = tuple(
            replace(
                group,
                images=group.images.to(device),
                weight=None if group.weight is None else group.weight.to(device),
            )
            for group in self.groups
        )
        return replace(self, groups=groups)


def _by_size(images: Sequence[Tensor], ids: Sequence[int]) -> tuple[ViewGroup, ...]:
    """A group for each size, in order of appearance."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        by_size.setdefault(tuple(image.shape), []).append(place)
    return tuple(
        ViewGroup(torch.stack([images[n] for n in held])[None], tuple(ids[n] for n in held))
        for held in by_size.values()
    )


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of V views, in scene order."""

    camera_from_world: Tensor
    """[..., V, 3, 4] rotation and translation, OpenCV axes, scene units."""
    intrinsics: Tensor
    """[..., V, 3, 3] in pixels at ``sizes``; origin at the top-left pixel's top-left corner."""
    sizes: tuple[tuple[int, int], ...]
    """V pairs (height, width) in pixels that the intrinsics belong to."""

    @property
    def world_from_camera(self) -> Tensor:
        """[..., V, 3, 4] inverse of ``camera_from_world``."""
        rotation = self.camera_from_world[..., :3].transpose(-1, -2)
        centre = -rotation @ self.camera_from_world[..., 3:]
        return torch.cat([rotation, centre], dim=-1)

    def resized(self, sizes: Sequence[tuple[int, int]]) -> Cameras:
        """The same cameras for images resampled to ``sizes`` (height, width)."""
        scale = torch.tensor(
            [[w / w0, h / h0, 1.0] for (h, w), (h0, w0) in zip(sizes, self.sizes, strict=True)],
            dtype=self.intrinsics.dtype,
            device=self.intrinsics.device,
        )
        return Cameras(self.camera_from_world, self.intrinsics * scale[..., None], tuple(sizes))


@dataclass(frozen=True)
class DenseView:
    """The dense maps of one view, at the size the model saw it."""

    index: int
    """Place of the view in the scene's order."""
    depth: Tensor
    """[H, W] along z, scene units."""
    depth_confidence: Tensor
    """[H, W] ≥ 1, larger is surer."""
    points: Tensor
    """[H, W, 3] in the world frame, scene units."""
    points_confidence: Tensor
    """[H, W] ≥ 1: the depth's where points come from depth, else the point head's."""


@dataclass(frozen=True)
class Reconstruction:
    """A whole scene: one entry a view, in the order the photos were given."""

    names: tuple[str, ...]
    cameras: Cameras
    """At the size the model saw; ``cameras.resized(original_sizes)`` for the photos' own."""
    original_sizes: tuple[tuple[int, int], ...]
    """(height, width) of each photo as read (after EXIF orientation)."""
    views: tuple[DenseView, ...]
    images: tuple[Tensor, ...]
    """[3, H, W] uint8 RGB of each view at the size the model saw."""
