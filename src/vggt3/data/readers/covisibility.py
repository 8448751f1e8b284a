"""Which views of a scene see the same places: from depth, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.overlap import pairwise_overlap
from vggt3.data.readers.record import Scene
from vggt3.files import replacing
from vggt3.geometry.camera import normalise_to_first
from vggt3.types import Cameras

LEAST = 0.3
"""Mean share that two views see of each other for them to be learned from together."""
MOST_FRAMES = 400
"""Frames of a scene that are looked at, evenly spaced: pairs grow with the square."""
SIZE = (48, 64)
"""Depth is looked at with so few pixels, every fourth of them."""
STRIDE, TOLERANCE = 4, 0.03
FORMAT = "vggt3 covisibility 2"
CHECK = hashlib.sha256().digest_size
"""Bytes at a kept file's start that tell whether the others are as they were written."""


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

    ``cache`` is a folder that keeps it for as long as images, cameras, depth and masks stay what
    they are; a damaged file is replaced.

    Raises:
        DataError: a view without depth, pose or intrinsics.
    """
    which = frames_of(scene)
    scene.require(("pose", "intrinsics", "depth"), which)
    cameras = scene.cameras(which)
    path = None if cache is None else cache / _digest(scene, which, cameras)
    if path is not None and (kept := _kept(path, len(which))) is not None:
        return kept
    found = _computed(scene, which, cameras)
    if path is not None:
        _keep(path, found)
    return found


@torch.no_grad()
def _computed(scene: Scene, which: list[int], cameras: Cameras) -> Tensor:
    depth = torch.stack([_small(scene.views[index].depth_map()) for index in which])
    small = cameras.resized([SIZE] * len(which))
    # To the origin first: float32 has steps of half a metre where georeferenced worlds lie.
    poses = normalise_to_first(small.camera_from_world.double())
    shares = pairwise_overlap(
        depth[None],
        small.intrinsics.float()[None],
        poses.float()[None],
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


def _digest(scene: Scene, which: list[int], cameras: Cameras) -> str:
    """Differs where the way to look at the frames, their cameras (by their numbers), or what holds
    images, depth and masks differ: files by name, size and time, and what is made of them."""
    about = (FORMAT, SIZE, STRIDE, TOLERANCE, scene.dataset, cameras.sizes)
    told = hashlib.sha256(_told((about, cameras.camera_from_world, cameras.intrinsics)))
    for view in (scene.views[index] for index in which):
        told.update(_told((view.file, view.depth, view.mask)))
    return told.hexdigest()


def _told(thing: object) -> bytes:
    written = io.BytesIO()
    _Teller(written).dump(thing)
    return written.getvalue()


class _Teller(pickle.Pickler):
    """Loaders can be pickled: that is all that they hold, and here also what is known of files
    without opening them."""

    def persistent_id(self, thing: object) -> object:
        if isinstance(thing, Path):
            try:
                facts = thing.stat()
            except OSError:  # whoever opens it will say so
                return str(thing)
            return str(thing.resolve()), facts.st_size, facts.st_mtime_ns
        if isinstance(thing, Tensor):
            return str(thing.dtype), tuple(thing.shape), thing.numpy().tobytes()
        return None


def _kept(path: Path, count: int) -> Tensor | None:
    """[count, count], where the file is there and as it was written."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    check, packed = stored[:CHECK], stored[CHECK:]
    if hashlib.sha256(packed).digest() != check:
        return None
    values = np.frombuffer(zlib.decompress(packed), "<f4").reshape(count, count)
    return torch.from_numpy(values.astype(np.float32))


def _keep(path: Path, matrix: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = zlib.compress(matrix.numpy().astype("<f4").tobytes())
    with replacing(path) as beside:
        beside.write_bytes(hashlib.sha256(packed).digest() + packed)
