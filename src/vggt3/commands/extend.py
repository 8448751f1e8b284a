"""``vggt3 extend``: more photos for a scene whose first ones may be gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from vggt3 import checks
from vggt3.commands.map_scene import (
    half_error,
    half_gap,
    notes,
    open_for,
    read_photos,
    scene_rows,
)
from vggt3.commands.progress import Bars
from vggt3.commands.reconstruct import ReadOptions
from vggt3.commands.tables import print_table
from vggt3.inference.extend import (
    check_extensible,
    check_names,
    check_rule,
    distance,
    extend_taken,
    share_of,
)
from vggt3.inference.mapping import LIMIT, map_taken
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory, check_scene_path
from vggt3.inference.taking import Taken
from vggt3.io.photo_set import PhotoSet
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel


def extend(
    scene: Path,
    more: list[str],
    *,
    output: Annotated[Path | None, "-o"] = None,
    overwrite: bool = False,
    compare: Path | None = None,
    half: bool = False,
    limit: str = LIMIT,
    model: ModelChoice = ModelChoice(),
    read: ReadOptions = ReadOptions(),
    run: RunOptions = RunOptions(),
) -> None:
    """Add photos to a scene that vggt3 map wrote: an approximation to mapping all at once.

    The new photos write once to the settled scene, with a step as long as their share of all
    tokens; cameras of the old photos stay as they are. The file appears whole or not at all.

    Args:
        scene: The scene file.
        more: A folder (not its subfolders), a glob, photos, a text file of paths, or one video. A
            photo that has the name of one in the scene is refused.
        output: The scene file to write; by default SCENE itself, with --overwrite.
        overwrite: Replace an earlier scene at OUT.
        compare: The folder of the scene's own photos: map all of them at once, and print how far
            the extended scene is from that.
        half: Store states and camera tokens as float16; prints what that changes.
        limit: Bytes that the scene's memory may take, such as 4G. Only softmax grows with photos.
    """
    place = output or scene
    checks.require(
        overwrite or output is not None, "--output", "be given (or --overwrite)", "nothing"
    )
    check_scene_path(place, overwrite)
    known = SceneMemory.load(scene)
    check_extensible(known)
    check_names(known, more)
    loaded, engine = _engine_for(known, model, run, () if compare else ("sweeps",))
    long_side = int(known.record.get("long_side") or loaded.model.config.long_side)
    side = read.long_side or long_side
    start = time.perf_counter()
    with Bars(loaded.model.config.layers) as bars:
        found = read_photos(more, read, side, bars)
        old = None if compare is None else _own_photos(known, compare, read, long_side, bars)
        taken = Taken.of(found)
        grown = extend_taken(engine, known, taken, limit, bars.observe)
        gap = half_gap(engine, grown, found.views()) if half else None
        away = None if old is None else _away(engine, grown, (old, found), limit, bars)
        saved = grown.save(place, half=half, overwrite=overwrite)
        rows = scene_rows(grown, saved, loaded, engine)
        share = share_of(known, grown.tokens - known.tokens)
        rows.insert(1, ("added", f"{len(found)} photos, {100 * share:.1f} % of all tokens"))
        if gap is not None:
            rows.append(("half precision", half_error(saved, gap)))
        if away is not None:
            rows.append(("from all at once", away))
    rows.append(("seconds", f"{time.perf_counter() - start:.2f}"))
    notes(found, loaded, grown.record.get("notes", [])[len(known.record.get("notes", [])) :])
    print_table(str(place), rows)


def _engine_for(
    scene: SceneMemory, model: ModelChoice, run: RunOptions, but: Sequence[str]
) -> tuple[LoadedModel, SceneEngine]:
    """The scene's model, by whose rule it grows, and what runs it. Sweeps are for ``--compare``."""
    loaded = open_for(scene, model, run)
    engine = SceneEngine(loaded.model, run)
    check_rule(scene, engine.identity, but)
    return loaded, engine


def _own_photos(
    scene: SceneMemory, folder: Path, read: ReadOptions, long_side: int, bars: Bars
) -> PhotoSet:
    """The scene's photos, read again."""
    old = read_photos([str(folder)], read, long_side, bars)
    checks.require(
        old.names == scene.names,
        f"--compare '{folder}'",
        f"hold the {len(scene)} photos of the scene, in their order",
        f"{len(old)} photos, of which {len(set(old.names) & set(scene.names))} have these names",
        error=checks.DataError,
    )
    return old


def _away(
    engine: SceneEngine,
    grown: SceneMemory,
    parts: tuple[PhotoSet, PhotoSet],
    limit: str,
    bars: Bars,
) -> str:
    """How far the extended scene is from the old and the new photos mapped at once."""
    old, new = parts
    # Frames of two videos may have one name: nobody asks for them.
    both = Taken.of(PhotoSet((*old.photos, *new.photos)))
    at_once = map_taken(engine, both, limit, bars.observe)
    return distance(grown, at_once, len(new)).describe()
