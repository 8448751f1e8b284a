"""What a reconstruction leaves behind: the four files of a scene, written as results arrive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vggt3 import checks
from vggt3.io.export.cameras_json import write_cameras_json
from vggt3.io.export.ply import write_cloud
from vggt3.io.export.preview import StripEntry, shown_indices, strip_entry, write_preview
from vggt3.io.export.sampled_cloud import SampledCloud, check_sampling
from vggt3.io.export.scene_npz import SceneArchiveWriter
from vggt3.io.photo_set import PhotoSet
from vggt3.io.staging import SCENE_FILES
from vggt3.types import Cameras, DenseView


@dataclass(frozen=True)
class SceneOptions:
    """How a scene is written."""

    max_points: int = 5_000_000
    """Points in points.ply, at most: a seeded sample of all that are sure enough."""
    confidence_percentile: float = 25.0
    """Points below this percentile of the scene's confidences are left out of points.ply."""
    points_seed: int = 0
    """Of the sample."""
    half: bool = False
    """Store the maps in scene.npz as float16: half the size, three digits."""

    def __post_init__(self) -> None:
        check_sampling(self.max_points, self.confidence_percentile, self.points_seed)


@dataclass(frozen=True)
class SceneSummary:
    """What was written."""

    point_count: int
    """Points in points.ply."""
    unposed: int
    """Views whose camera was not finite: cameras.json has them without a pose."""


class SceneWriter:
    """Takes cameras once and dense views one by one, in any order; then writes the scene.

    The depth, confidence and points of a view go to disk at once; kept in memory are the sample
    for points.ply and up to eight small pictures. Use it as a context manager, inside
    :func:`~vggt3.io.staging.staged`, so that files are closed and removed where a run fails.
    """

    def __init__(self, folder: Path, photos: PhotoSet, options: SceneOptions | None = None) -> None:
        """Write into ``folder``, which exists; its name becomes the scene's."""
        options = options or SceneOptions()
        self._folder = folder
        self._photos = photos
        self._cameras: Cameras | None = None
        self._cloud = SampledCloud(
            options.max_points, options.confidence_percentile, options.points_seed
        )
        self._shown = shown_indices(len(photos))
        self._strip: dict[int, StripEntry] = {}
        self._waiting = set(range(len(photos)))
        self._archive = SceneArchiveWriter(folder / "scene.npz", half=options.half)

    def cameras(self, cameras: Cameras) -> None:
        """Take the cameras of all views, at the size the model saw them, in scene order."""
        checks.require(
            tuple(cameras.sizes) == self._photos.sizes,
            "camera sizes",
            "be those of the photos in the model",
            f"{len(cameras.sizes)} others",
        )
        self._cameras = cameras

    def add(self, view: DenseView) -> None:
        """Write one view's maps; each view of the scene comes once, in any order."""
        checks.require(
            view.index in self._waiting,
            "view",
            f"be one of {len(self._photos)} and come once",
            view.index,
        )
        photo = self._photos.photos[view.index]
        self._cloud.add(view, photo.image)
        self._archive.add(photo.name, view, photo.image)
        if view.index in self._shown:
            self._strip[view.index] = strip_entry(photo.name, view, photo.image)
        self._waiting.discard(view.index)

    def finish(self) -> SceneSummary:
        """Write cameras.json, points.ply and preview.png; all views and cameras have come."""
        if self._cameras is None:
            checks.fail("cameras", "be given before the scene is finished", "none")
        missing = len(self._waiting)
        checks.require(missing == 0, "views", "all come before the end", f"{missing} missing")
        self._archive.close()
        cameras = self._cameras.resized(self._photos.original_sizes)
        paths = {name: self._folder / name for name in SCENE_FILES}
        unposed = write_cameras_json(
            paths["cameras.json"], cameras, self._photos.names, name=self._folder.name
        )
        cloud = self._cloud.cloud()
        write_cloud(paths["points.ply"], cloud.xyz, cloud.rgb)
        strip = [self._strip[index] for index in self._shown]
        write_preview(paths["preview.png"], strip, cloud, self._cameras)
        return SceneSummary(len(cloud), unposed)

    def __enter__(self) -> SceneWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()
