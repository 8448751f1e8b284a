"""What a reconstruction leaves behind: the four files of a scene, written as results arrive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from vggt3 import checks
from vggt3.distributed import ALONE, World
from vggt3.io.export.cameras_json import write_cameras_json
from vggt3.io.export.npz_parts import join_archives
from vggt3.io.export.ply import write_cloud
from vggt3.io.export.preview import StripEntry, shown_indices, strip_entry, write_preview
from vggt3.io.export.sampled_cloud import SampledCloud, check_sampling
from vggt3.io.export.scene_npz import SceneArchiveWriter
from vggt3.io.lane import Lane
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

    Processes that share a scene each take the views that they hold, into parts of their own, out
    of which the first makes the files that one process would have written.
    """

    def __init__(
        self,
        folder: Path,
        photos: PhotoSet,
        options: SceneOptions | None = None,
        world: World = ALONE,
    ) -> None:
        """Write into ``folder``, which exists (one for all of ``world``); its name becomes the
        scene's."""
        options = options or SceneOptions()
        self._folder = folder
        self._photos = photos
        self._cameras: Cameras | None = None
        pixels = sum(height * width for height, width in photos.sizes)
        chosen = options.max_points, options.confidence_percentile, options.points_seed
        self._cloud = SampledCloud(*chosen, pixels)
        self._shown = shown_indices(len(photos))
        self._strip: dict[int, StripEntry] = {}
        self._world = world
        self._waiting = set(range(len(photos)) if photos.held is None else photos.held)
        archive = "scene.npz" if world.size == 1 else _part(world.rank)
        self._archive = SceneArchiveWriter(folder / archive, half=options.half)
        self._lane = Lane()

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
        stored = self._lane.put(self._archive.add, photo.name, view, photo.image)
        self._cloud.add(view, photo.image)
        if view.index in self._shown:
            self._strip[view.index] = strip_entry(photo.name, view, photo.image)
        stored.result()  # the view's memory is used again
        self._waiting.discard(view.index)

    def finish(self) -> SceneSummary:
        """Write cameras.json, points.ply and preview.png; all views and cameras have come."""
        if self._cameras is None:
            checks.fail("cameras", "be given before the scene is finished", "none")
        missing = len(self._waiting)
        checks.require(missing == 0, "views", "all come before the end", f"{missing} missing")
        self._lane.close()
        self._archive.close()
        if self._world.size == 1:
            return self._write(self._cameras)
        self._world.agreed(self._hand_in)
        for strip in self._world.exchange(self._strip):
            self._strip.update(strip)
        return self._world.agreed(partial(self._join, self._cameras))[0]

    def _hand_in(self) -> None:
        """Leave what the first process needs of the views held here; it has its own."""
        if self._world.rank:
            self._cloud.save(self._folder / _points(self._world.rank))

    def _join(self, cameras: Cameras) -> SceneSummary:
        """On the first process: all parts together, and the files out of them."""
        if self._world.rank:
            return SceneSummary(0, 0)
        parts = [self._folder / _part(rank) for rank in range(self._world.size)]
        points = [self._folder / _points(rank) for rank in range(1, self._world.size)]
        join_archives(self._folder / "scene.npz", parts, self._names_by_size())
        for path in points:
            self._cloud.load(path)
        for path in (*parts, *points):
            path.unlink(missing_ok=True)  # one may have become the archive
        return self._write(cameras)

    def _names_by_size(self) -> list[str]:
        """In the order in which one process computes them: size by size, as these appear."""
        by_size: dict[tuple[int, int], list[str]] = {}
        for photo in self._photos.photos:
            by_size.setdefault(photo.size, []).append(photo.name)
        return [name for names in by_size.values() for name in names]

    def _write(self, found: Cameras) -> SceneSummary:
        cameras = found.resized(self._photos.original_sizes)
        paths = {name: self._folder / name for name in SCENE_FILES}
        unposed = write_cameras_json(
            paths["cameras.json"], cameras, self._photos.names, name=self._folder.name
        )
        cloud = self._cloud.cloud()
        write_cloud(paths["points.ply"], cloud.xyz, cloud.rgb)
        strip = [self._strip[index] for index in self._shown]
        write_preview(paths["preview.png"], strip, cloud, found)
        return SceneSummary(len(cloud), unposed)

    def __enter__(self) -> SceneWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lane.abandon()
        self._archive.close()


def _part(rank: int) -> str:
    """The file for the maps of a process's views."""
    return f"maps-{rank}.npz"


def _points(rank: int) -> str:
    """The file for the points that a process's views offer."""
    return f"points-{rank}.npy"
