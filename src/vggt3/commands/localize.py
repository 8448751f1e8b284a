"""``vggt3 localize``: where photos were taken from, in a scene that has never seen them."""

from __future__ import annotations

import math
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

from vggt3 import checks
from vggt3.commands.map_scene import (
    Rows,
    check_confidence,
    notes,
    open_for,
    read_photos,
)
from vggt3.commands.progress import Bars
from vggt3.commands.reconstruct import ReadOptions
from vggt3.commands.tables import print_table
from vggt3.inference.alignment import Alignment, align
from vggt3.inference.localise import Localizer, QueryOptions
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.io.photo_set import PhotoSet
from vggt3.io.query_writer import QueryWriter
from vggt3.io.reference_cameras import read_reference
from vggt3.io.staging import check_out, not_answers, staged
from vggt3.model.choice import ModelChoice

LEAST = 0.5
"""Confidence below which a photo is named on stderr."""


def localize(
    scene: Path,
    queries: list[str],
    *,
    output: Annotated[Path, "-o"],
    overwrite: bool = False,
    reference: Path | None = None,
    points: bool = False,
    cameras_only: bool = False,
    fast_head: bool = False,
    model: ModelChoice = ModelChoice(),
    read: ReadOptions = ReadOptions(),
    run: RunOptions = RunOptions(),
) -> None:
    """Find where photos were taken from, in a scene that vggt3 map wrote.

    OUT gets cameras.json (pose, intrinsics and confidence of each photo) and scene.npz (depth),
    whole or not at all. The scene is not changed. The model is the one that the scene was mapped
    with; name it where it did not ship with vggt3.

    Args:
        scene: The scene file.
        queries: A folder (not its subfolders), a glob, photos, a text file of paths, or one video.
        output: The folder to write.
        overwrite: Replace earlier results in OUT.
        reference: Known cameras of mapped photos: cameras.json, a COLMAP model's folder, or
            transforms.json. Answers then come in its frame and unit.
        points: Write the photos' points too, in scene.npz and as points.ply; not with
            --cameras-only.
        cameras_only: Leave depth out.
        fast_head: Let photos see the map in the camera head, but not the map the photo; for large
            maps many times fewer operations, slightly other poses.
    """
    apart = "not stand beside --cameras-only, which leaves them out"
    checks.require(not (points and cameras_only), "--points", apart, "both")
    check_out(output, overwrite, judge=not_answers)
    known = SceneMemory.load(scene)
    aligned = None if reference is None else align(known, read_reference(reference))
    loaded = open_for(known, model, run)
    options = QueryOptions(fast_head=fast_head, dense=not cameras_only)
    similarity = None if aligned is None else aligned.similarity
    localizer = Localizer(SceneEngine(loaded.model, run), known, options, similarity)
    long_side = read.long_side or known.record.get("long_side") or loaded.model.config.long_side
    with Bars(loaded.model.config.layers) as bars:
        photos = read_photos(queries, read, int(long_side), bars)
        paths = [photo.path for photo in photos.photos]
        with (
            staged(output, overwrite, [scene, *paths], not_answers) as folder,
            QueryWriter(folder, photos, dense=options.dense, points=points) as writer,
        ):
            rows = _run(localizer, photos, writer, aligned, bars)
    notes(photos, loaded)
    told = check_confidence(list(photos.names), rows[1], LEAST)
    about = [] if aligned is None else [aligned.unmatched(), aligned.warning()]
    coarse = aligned.grid() if aligned is not None and points else None
    for line in (told, *about, coarse):
        if line:
            print("vggt3: note: " + " ".join(line.split()), file=sys.stderr)
    print_table(str(output), rows[0] + [("model", loaded.description)])


def _run(
    localizer: Localizer,
    photos: PhotoSet,
    writer: QueryWriter,
    aligned: Alignment | None,
    bars: Bars,
) -> tuple[Rows, list[float]]:
    """Ask and write; the rows to show, and each photo's confidence."""
    start = time.perf_counter()
    sure = [math.nan] * len(photos)
    for answer in localizer.ask(photos.views(), bars.observe):
        sure[answer.index] = answer.confidence
        writer.add(
            answer.index,
            answer.camera_from_world,
            answer.intrinsics,
            answer.confidence,
            answer.maps,
        )
    seconds = time.perf_counter() - start
    metric = aligned is not None and aligned.metric
    scale = "metric: aligned to known cameras" if metric else "arbitrary"
    unposed = writer.finish(scale)
    rows = [("photos", str(len(photos))), ("map", f"{len(localizer.scene)} photos")]
    if unposed:
        rows.append(("without a pose", str(unposed)))
    known = sorted(c for c in sure if math.isfinite(c))
    if known:
        middle = statistics.median(known)
        rows.append(("confidence", f"{known[0]:.2f} to {known[-1]:.2f}, median {middle:.2f}"))
    if aligned is not None:
        rows.append(("reference", aligned.describe()))
    rows.append(("seconds", f"{seconds:.2f} ({len(photos) / seconds:.1f} photos/s)"))
    return rows, sure
