"""Which views of a scene see the same places: from depth, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.overlap import pairwise_overlap
from vggt3.data.readers.record import Scene
from vggt3.types import Cameras

LEAST = 0.3
"""Mean share that two views see of each other for them to be learned from together."""
MOST_FRAMES = 400
"""Frames of a scene that are looked at, evenly spaced: pairs grow with the square."""
SIZE = (48, 64)
"""Depth is looked at with so few pixels, every fourth of them."""
STRIDE, TOLERANCE = 4, 0.03
FORMAT = "vggt3 covisibility 1"


def frames_of(scene: Scene) -> list[int]:
    """The frames of a scene that are learned from."""
    count = len(scene.views)
    return sorted({int(n) for n in np.linspace(0, count - 1, min(count, MOST_FRAMES))})


def covisibility(
    scene: Scene,
    cache: Path | None = None,
) -> Tensor:
    """[N, N] for :func:`frames_of` the scene: the mean of the share of one view's depth that the
    other sees too, and the other way round; 1 on the diagonal.

    ``cache`` is a folder that keeps it; a file of other images, or a damaged one, is replaced.

    Raises:
        DataError: a view without depth, pose or intrinsics.
    """
    which = frames_of(scene)
    scene.require(("pose", "intrinsics", "depth"), which)
    digest = _digest(scene, which)
    path = None if cache is None else cache / f"{digest}.npz"
    if path is not None and (kept := _kept(path, len(which))) is not None:
        return kept
    found = _computed(scene, which)
    if path is not None:
        _keep(path, found)
    return found


@torch.no_grad()
def _computed(scene: Scene, which: list[int]) -> Tensor:
    cameras = scene.cameras(which)
    depth = torch.stack([_small(scene.views[index].depth_map()) for index in which])
    small = Cameras(cameras.camera_from_world, cameras.intrinsics, cameras.sizes).resized(
        [SIZE] * len(which)
    )
    shares = pairwise_overlap(
        depth[None],
        small.intrinsics.float()[None],
        small.camera_from_world.float()[None],
        STRIDE,
        TOLERANCE,
    )[0]
    mean = (shares + shares.T) / 2
    return mean.fill_diagonal_(1.0)


def _small(depth: Tensor) -> Tensor:
    rows, columns = (
        ((torch.arange(new) + 0.5) * old / new).long()
        for new, old in zip(SIZE, depth.shape, strict=True)
    )
    return depth[rows[:, None], columns[None]]


@dataclass(frozen=True)
class Links:
    """Which frames of a scene see enough of each other to be learned from together."""

    near: Tensor
    """[N, N] bool, false on the diagonal."""
    groups: tuple[tuple[int, ...], ...]
    """Frames that chains of such pairs hold together, the largest group first."""

    @classmethod
    def of(
        cls,
        matrix: Tensor,  # [N, N]
        least: float = LEAST,
    ) -> Links:
        """Pairs whose covisibility is above ``least``."""
        others = ~torch.eye(len(matrix), dtype=torch.bool)
        near = (matrix > least) & others
        left, groups = set(range(len(near))), []
        while left:
            group, edge = set[int](), {min(left)}
            while edge:
                group |= edge
                edge = set(near[sorted(edge)].any(0).nonzero()[:, 0].tolist()) - group
            groups.append(tuple(sorted(group)))
            left -= group
        return cls(near, tuple(sorted(groups, key=len, reverse=True)))

    @property
    def largest(self) -> int:
        """Frames of the largest group: as many views can be shown together."""
        return len(self.groups[0]) if self.groups else 0

    def sample(self, count: int, draw: Draw) -> list[int]:
        """``count`` frames (at most :attr:`largest`), each near one before it.

        Any frame of a group of at least ``count`` may be the first; which follow is left to
        chance.
        """
        able = [frame for group in self.groups if len(group) >= count for frame in group]
        chosen = [draw.choice(able)]
        while len(chosen) < count:
            beside = self.near[chosen].any(0)
            beside[chosen] = False
            chosen.append(draw.choice(beside.nonzero()[:, 0].tolist()))
        return chosen


def _digest(scene: Scene, which: list[int]) -> str:
    """Differs where the files, the frames or the way to look at them differ."""
    told = hashlib.sha256(f"{FORMAT} {SIZE} {STRIDE} {TOLERANCE} {scene.dataset}".encode())
    for index in which:
        view = scene.views[index]
        facts = view.file.stat()
        told.update(f"\0{view.file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}".encode())
    return told.hexdigest()


def _kept(path: Path, count: int) -> Tensor | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = torch.from_numpy(stored["covisibility"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return found if tuple(found.shape) == (count, count) else None


def _keep(path: Path, matrix: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez_compressed(beside, covisibility=matrix.numpy())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
