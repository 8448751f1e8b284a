"""``vggt3 export``: a scene's folder becomes what other programs read."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from vggt3 import checks

if TYPE_CHECKING:
    from vggt3.io.photo_files import PhotoFile
    from vggt3.io.scene_folder import SceneFolder

Target = Literal["colmap", "nerfstudio", "glb"]

ENDINGS = {"colmap": "-colmap", "nerfstudio": "-nerfstudio", "glb": ".glb"}
"""Behind the scene's name where no --output is given."""


@dataclass(frozen=True)
class Work:
    """All that a run of the command was asked to do."""

    to: Target
    output: Path
    overwrite: bool
    points: int
    confidence_percentile: float
    depth_tolerance: float
    text: bool
    link: bool
    photos: list[PhotoFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def facts(self, scene: SceneFolder) -> dict[str, object]:
        """What the manifest says beside the files."""
        return {
            "scene": scene.listing.name,
            "scale": scene.listing.scale,
            "points": self.points,
            "confidence_percentile": self.confidence_percentile,
        }


def export(
    scene: Path,
    *,
    to: Target,
    output: Annotated[Path | None, "-o"] = None,
    overwrite: bool = False,
    photos: str | None = None,
    link: bool = False,
    points: int = 200_000,
    confidence_percentile: float = 25.0,
    depth_tolerance: float = 0.02,
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
        photos: The photos that were reconstructed, named as they were then; OUT gets a copy of
            each in images/.
        link: Link to the photos rather than copy them.
        points: Points to write, at most: a seeded sample of all that are sure enough.
        confidence_percentile: Points below this percentile of the scene's confidences are left
            out.
        depth_tolerance: A view sees a point if its depth there agrees to this fraction (colmap).
        text: Write the COLMAP model as text rather than binary.
    """
    from vggt3.io.export.sampled_cloud import check_sampling
    from vggt3.io.photo_files import find_photo_files
    from vggt3.io.scene_folder import open_scene

    checks.require(points >= 1, "--points", "be at least 1", points)
    check_sampling(points, confidence_percentile, 0)
    checks.require(0 < depth_tolerance < 1, "--depth-tolerance", "be between 0 and 1",
                   depth_tolerance)  # fmt: skip
    checks.require(not link or photos is not None, "--link", "come with --photos", "no photos")
    checks.require(not text or to == "colmap", "--text", "be left out", f"--to {to}")
    checks.require(photos is None or to != "glb", "--photos", "be left out", "--to glb")
    start = time.perf_counter()
    with open_scene(scene) as opened:
        place = Path(os.path.abspath(scene))
        found = [] if photos is None else find_photo_files(
            photos, opened.names, opened.cameras.sizes
        )  # fmt: skip
        work = Work(
            to=to,
            output=output or place.with_name(place.name + ENDINGS[to]),
            overwrite=overwrite,
            points=points,
            confidence_percentile=confidence_percentile,
            depth_tolerance=depth_tolerance,
            text=text,
            link=link,
            photos=found,
        )
        if opened.unposed:
            work.notes.append(f"{opened.unposed} views without a pose were left out")
        wrote = _glb(work, opened) if to == "glb" else _folder(work, opened)
    for note in work.notes:
        print(f"vggt3: note: {note}", file=sys.stderr)
    print(f"{work.output}: {wrote} in {time.perf_counter() - start:.1f} s")


def _glb(work: Work, scene: SceneFolder) -> str:
    from vggt3.io.export.glb import MAGIC, load_trimesh, write_glb
    from vggt3.io.staging import staged_file

    load_trimesh()
    with staged_file(work.output, work.overwrite, MAGIC) as path:
        cloud = scene.cloud(work.points, work.confidence_percentile)
        write_glb(path, scene.cameras, scene.names, cloud)
    return f"{len(scene.names)} cameras and {len(cloud):,} points"


def _folder(work: Work, scene: SceneFolder) -> str:
    from vggt3.io.export.colmap import load_pycolmap
    from vggt3.io.export.manifest import not_exported, write_manifest
    from vggt3.io.photo_files import put_photo
    from vggt3.io.staging import staged

    if work.to == "colmap":
        load_pycolmap()
    keep = [photo.path for photo in work.photos]
    with staged(work.output, work.overwrite, keep, not_exported) as folder:
        wrote = _colmap(work, scene, folder) if work.to == "colmap" else _nerfstudio(
            work, scene, folder
        )  # fmt: skip
        for photo in work.photos:
            put_photo(photo, folder / "images" / photo.name, work.link)
        write_manifest(folder, work.to, work.facts(scene))
    if not work.photos:
        work.notes.append(
            "no photos were put into images/: --photos PHOTOS copies them, with --link links them"
        )
    return wrote


def _colmap(work: Work, scene: SceneFolder, folder: Path) -> str:
    from vggt3.io.export.colmap import write_colmap
    from vggt3.io.export.tracks import observe

    cloud = scene.cloud(work.points, work.confidence_percentile)
    depths = (view.depth for view, _ in scene.views())
    seen = observe(cloud, scene.cameras, depths, work.depth_tolerance)
    if seen.own_error > 0.5:
        work.notes.append(
            f"points lie {seen.own_error:.2f} pixels from where their own views have them"
        )
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    form: Literal["binary", "text"] = "text" if work.text else "binary"
    summary = write_colmap(model, scene.cameras, scene.names, cloud, seen, form=form)
    return (
        f"{len(scene.names)} cameras, {summary.points:,} points, {summary.observations:,} "
        f"sightings ({summary.shared / summary.points:.0%} of the points in two views or more)"
    )


def _nerfstudio(work: Work, scene: SceneFolder, folder: Path) -> str:
    from vggt3.io.export.nerfstudio import write_nerfstudio

    cloud = scene.cloud(work.points, work.confidence_percentile)
    write_nerfstudio(folder, scene.cameras, scene.names, cloud)
    return f"{len(scene.names)} cameras and {len(cloud):,} points"
