"""A scene's folder, as ``vggt3 reconstruct`` wrote it, opened again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NoReturn

from torch import Tensor

from vggt3 import checks
from vggt3.io.export.cameras_json import CameraFile, load_cameras_json
from vggt3.io.export.sampled_cloud import Cloud, SampledCloud
from vggt3.io.export.scene_npz import SceneArchive
from vggt3.io.layout import looks_like
from vggt3.io.sources import existing
from vggt3.types import Cameras, DenseView


@dataclass(frozen=True, eq=False)
class SceneFolder:
    """The V views of a scene that have a pose, maps unread; use it as a context manager."""

    place: Path
    listing: CameraFile
    names: tuple[str, ...]
    """V photos, as ``cameras.json`` names them: relative, with forward slashes."""
    cameras: Cameras
    """Of these views, float64, at the photos' original sizes."""
    archive: SceneArchive

    @property
    def unposed(self) -> int:
        """Views that were left out because they have no pose."""
        return len(self.listing.frames) - len(self.names)

    def views(self) -> Iterator[tuple[DenseView, Tensor]]:
        """Each view's maps and its photo as the model saw it, [3, H, W] uint8.

        A view's ``index`` is its place in ``names``.
        """
        for name, view in self.archive:
            image = self.archive.image(name)
            if image is None or image.shape[1:] != view.depth.shape:
                checks.fail(
                    f"'{self.place / 'scene.npz'}'",
                    f"hold the colours of '{name}' (reconstruct the scene anew)",
                    "none" if image is None else f"colours of shape {list(image.shape)}",
                    error=checks.DataError,
                )
            yield view, image

    def cloud(self, most: int, confidence_percentile: float, seed: int = 0) -> Cloud:
        """At most ``most`` points of the surest, see :class:`SampledCloud`; at least one."""
        sample = SampledCloud(most, confidence_percentile, seed)
        for view, image in self.views():
            sample.add(view, image)
        cloud = sample.cloud()
        if len(cloud) == 0:
            checks.fail(
                f"scene '{self.place}'", "have a finite point", "none", error=checks.DataError
            )
        return cloud

    def close(self) -> None:
        """Close ``scene.npz``."""
        self.archive.close()

    def __enter__(self) -> SceneFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_scene(folder: str | Path) -> SceneFolder:
    """The scene in ``folder``; DataError says what the folder looks like if it is none."""
    place = existing(folder, "SCENE")
    listing, maps = place / "cameras.json", place / "scene.npz"
    if not (listing.is_file() and maps.is_file()):
        wanted = "be a folder that vggt3 reconstruct wrote (cameras.json and scene.npz)"
        checks.fail(f"SCENE '{folder}'", wanted, looks_like(place), error=checks.DataError)
    file = load_cameras_json(listing)
    for frame in file.frames:
        _check_name(listing, frame.file)
    counts = Counter(frame.file for frame in file.frames)
    repeated = [f"'{name}' {count}×" for name, count in counts.items() if count > 1]
    if repeated:
        _fail(listing, "give every photo its own name", repeated[0])
    names = tuple(frame.file for frame in file.posed)
    if not names:
        _fail(listing, "have at least one view with a pose", f"{len(file.frames)} without")
    return SceneFolder(place, file, names, file.cameras(), SceneArchive(maps, names))


def _check_name(listing: Path, name: str) -> None:
    """Photos are written under their names: none may lead out of the folder."""
    posix, native = PurePosixPath(name), Path(name)
    outside = posix.is_absolute() or bool(native.anchor) or ".." in (*posix.parts, *native.parts)
    # A zero ends a name in COLMAP's binary files.
    if outside or "\0" in name or not name or posix.as_posix() != name:
        _fail(listing, "name photos by relative paths with forward slashes", repr(name))


def _fail(listing: Path, wanted: str, got: str) -> NoReturn:
    checks.fail(f"'{listing}'", wanted, got, error=checks.DataError)
