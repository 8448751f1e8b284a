"""``vggt3 export``: a scene's folder becomes what other programs read."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from vggt3 import checks

if TYPE_CHECKING:
    from vggt3.io.export.sampled_cloud import Cloud
    from vggt3.io.photo_files import PhotoFile
    from vggt3.io.scene_folder import SceneFolder

Target = Literal["colmap", "nerfstudio", "glb"]

ENDINGS = {"colmap": "-colmap", "nerfstudio": "-nerfstudio", "glb": ".glb"}
"""Behind the scene's name where no --output is given."""
TOLERANCE = 0.02
"""Of --depth-tolerance, where none is given."""


@dataclass(frozen=True)
class PhotoOptions:
    """Whether the photos come along."""

    photos: str | None = None
    """The photos that were reconstructed, or the video, named as they were then: OUT gets a copy
    of each in images/."""
    link: bool = False
    """Link to the photos rather than copy them."""

    def __post_init__(self) -> None:
        given = self.photos is not None
        checks.require(given or not self.link, "--link", "come with --photos", "no photos")


@dataclass(frozen=True)
class PointOptions:
    """Which points are written."""

    points: int = 200_000
    """Points to write, at most: a seeded sample of all that are sure enough."""
    confidence_percentile: float = 25.0
    """Points below this percentile of the scene's confidences are left out."""
    depth_tolerance: float | None = None
    """A view sees a point of another where its own depth agrees to this fraction (colmap alone;
    default: 0.02)."""

    def __post_init__(self) -> None:
        checks.require(self.points >= 1, "--points", "be at least 1", self.points)
        share, tolerance = self.confidence_percentile, self.depth_tolerance
        wanted = "be at least 0 and below 100"
        checks.require(0 <= share < 100, "--confidence-percentile", wanted, share)
        wanted = "be above 0 and below 1"
        fits = tolerance is None or 0 < tolerance < 1
        checks.require(fits, "--depth-tolerance", wanted, tolerance)


@dataclass(frozen=True)
class Work:
    """All that a run of the command was asked to do."""

    scene: SceneFolder
    to: Target
    output: Path
    overwrite: bool
    options: PointOptions
    text: bool
    link: bool
    photos: Sequence[PhotoFile]
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """V photos, as they are called in what is written."""
        return tuple(photo.name for photo in self.photos) or self.scene.names

    def cloud(self) -> Cloud:
        """The points to write."""
        return self.scene.cloud(self.options.points, self.options.confidence_percentile)


def export(
    scene: Path,
    *,
    to: Target,
    output: Annotated[Path | None, "-o"] = None,
    overwrite: bool = False,
    photos: PhotoOptions = PhotoOptions(),
    points: PointOptions = PointOptions(),
    text: bool = False,
) -> None:
    """Write a scene for other programs: a COLMAP model, nerfstudio's transforms.json, or a GLB.

    SCENE is a folder that vggt3 reconstruct wrote. OUT appears whole or not at all.

    Args:
        scene: The folder of the scene.
        to: colmap (sparse/0, with tracks), nerfstudio (transforms.json, sparse_pc.ply), or glb
            (one file with points and cameras).
        output: The folder to write, or the file for glb (default: SCENE-colmap,
            SCENE-nerfstudio or SCENE.glb).
        overwrite: Replace an earlier export in OUT.
        text: Write the COLMAP model as text rather than binary.
    """
    from vggt3.io.photo_files import find_photo_files
    from vggt3.io.scene_folder import open_scene

    checks.require(not text or to == "colmap", "--text", "be left out", f"--to {to}")
    checks.require(photos.photos is None or to != "glb", "--photos", "be left out", "--to glb")
    idle = points.depth_tolerance is not None and to != "colmap"
    checks.require(not idle, "--depth-tolerance", "be left out", f"--to {to}")
    start = time.perf_counter()
    place = Path(os.path.abspath(scene))
    with open_scene(scene) as opened:
        found = []
        if photos.photos is not None:
            found = find_photo_files(photos.photos, opened.names, opened.cameras.sizes)
        out = output or place.with_name(place.name + ENDINGS[to])
        work = Work(opened, to, out, overwrite, points, text, photos.link, found)
        if opened.unposed:
            work.notes.append(f"{opened.unposed} views without a pose were left out")
        wrote = _glb(work) if to == "glb" else _folder(work)
    for note in work.notes:
        print(f"vggt3: note: {note}", file=sys.stderr)
    print(f"{out}: {wrote} in {time.perf_counter() - start:.1f} s")


def _glb(work: Work) -> str:
    from vggt3.io.export.glb import MAGIC, load_trimesh, write_glb
    from vggt3.io.staging import staged_file

    load_trimesh()
    scene = work.scene
    with staged_file(work.output, work.overwrite, MAGIC) as path:
        cloud = work.cloud()
        write_glb(path, scene.cameras, work.names, cloud)
    return f"{len(scene.names)} cameras and {len(cloud):,} points"


def _folder(work: Work) -> str:
    from vggt3.io.export.colmap import load_pycolmap
    from vggt3.io.export.manifest import not_exported, write_manifest
    from vggt3.io.photo_files import put_photos
    from vggt3.io.staging import staged

    if work.to == "colmap":
        load_pycolmap()
    keep = [photo.path for photo in work.photos]
    with staged(work.output, work.overwrite, keep, not_exported) as folder:
        wrote = _colmap(work, folder) if work.to == "colmap" else _nerfstudio(work, folder)
        put_photos(work.photos, folder / "images", work.link)
        listing = work.scene.listing
        write_manifest(folder, work.to, {"scene": listing.name, "scale": listing.scale})
    if not work.photos:
        work.notes.append(
            "no photos were put into images/: --photos PHOTOS copies them, with --link links them"
        )
    return wrote


def _colmap(work: Work, folder: Path) -> str:
    from vggt3.io.export.colmap import write_colmap
    from vggt3.io.export.tracks import observe

    scene, cloud = work.scene, work.cloud()
    depths = (view.depth for view, _ in scene.views())
    seen = observe(cloud, scene.cameras, depths, work.options.depth_tolerance or TOLERANCE)
    if seen.own_error > 0.5:
        work.notes.append(
            f"points lie {seen.own_error:.2f} pixels from where their own views have them"
        )
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    form: Literal["binary", "text"] = "text" if work.text else "binary"
    summary = write_colmap(model, scene.cameras, work.names, cloud, seen, form=form)
    return (
        f"{len(scene.names)} cameras, {summary.points:,} points, {summary.observations:,} "
        f"sightings ({summary.shared / summary.points:.0%} of the points in two views or more)"
    )


def _nerfstudio(work: Work, folder: Path) -> str:
    from vggt3.io.export.nerfstudio import write_nerfstudio

    scene, cloud = work.scene, work.cloud()
    write_nerfstudio(folder, scene.cameras, work.names, cloud)
    return f"{len(scene.names)} cameras and {len(cloud):,} points"
