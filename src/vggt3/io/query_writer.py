"""What localisation leaves behind: cameras with their confidence, and dense maps."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from vggt3.io.export.cameras_json import write_cameras_json
from vggt3.io.export.ply import write_cloud
from vggt3.io.export.sampled_cloud import SampledCloud
from vggt3.io.export.scene_npz import KINDS, SceneArchiveWriter
from vggt3.io.photo_set import PhotoSet
from vggt3.io.staging import CONFIDENCE
from vggt3.types import Cameras, DenseView

DEPTH_KINDS = ("depth", "depth_confidence")
MAX_POINTS, PERCENTILE = 5_000_000, 25.0
"""Of points.ply, as ``reconstruct`` has them by default."""


class QueryWriter:
    """Takes photos' cameras and maps one by one, in any order; ``finish`` writes the rest.

    Use it as a context manager inside :func:`~vggt3.io.staging.staged`.
    """

    def __init__(
        self, folder: Path, photos: PhotoSet, *, dense: bool = True, points: bool = False
    ) -> None:
        """Write into ``folder``, which exists: cameras.json always, scene.npz where ``dense``,
        points.ply (and points in scene.npz) where ``points``."""
        self._folder, self._photos = folder, photos
        kinds = KINDS if points else DEPTH_KINDS
        self._archive = SceneArchiveWriter(folder / "scene.npz", kinds=kinds) if dense else None
        self._cloud = SampledCloud(MAX_POINTS, PERCENTILE, 0) if points else None
        self._cameras: dict[int, tuple[Tensor, Tensor, float]] = {}

    def add(
        self,
        index: int,
        pose: Tensor,  # [3, 4] camera_from_world
        intrinsics: Tensor,  # [3, 3] pixels at the size that the model saw
        confidence: float,
        maps: DenseView | None,
    ) -> None:
        """Take what is known of one photo."""
        self._cameras[index] = pose, intrinsics, confidence
        photo = self._photos.photos[index]
        if maps is not None and self._archive is not None:
            self._archive.add(photo.name, maps, photo.image if self._cloud else None)
        if maps is not None and self._cloud is not None:
            self._cloud.add(maps, photo.image)

    def finish(self, scale: str | None = "arbitrary") -> int:
        """Write cameras.json and points.ply; returns how many photos got no finite camera."""
        if self._archive is not None:
            self._archive.close()
        poses, intrinsics, sure = zip(
            *(self._cameras[n] for n in range(len(self._photos))), strict=True
        )
        cameras = Cameras(torch.stack(poses), torch.stack(intrinsics), self._photos.sizes)
        if self._cloud is not None:
            cloud = self._cloud.cloud()
            write_cloud(self._folder / "points.ply", cloud.xyz, cloud.rgb)
        return write_cameras_json(
            self._folder / "cameras.json",
            cameras.resized(self._photos.original_sizes),
            self._photos.names,
            name=self._folder.name,
            scale=scale,
            further=[{CONFIDENCE: round(c, 4) if math.isfinite(c) else None} for c in sure],
        )

    def __enter__(self) -> QueryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._archive is not None:
            self._archive.close()
