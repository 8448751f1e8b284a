"""``vggt3 map``: photos become a scene file that further photos can be localised in."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from vggt3.commands.progress import Bars
from vggt3.commands.reconstruct import ReadOptions
from vggt3.commands.tables import print_table
from vggt3.inference.identity import identity_of
from vggt3.inference.localise import Localizer, QueryOptions, gap_between
from vggt3.inference.mapping import LIMIT, check_size, map_taken
from vggt3.inference.options import RunOptions, show_bytes
from vggt3.inference.recall import STRANGERS, spread_out
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import Saved, SceneMemory, check_scene_path
from vggt3.inference.taking import Taken
from vggt3.io.photo_set import PhotoSet
from vggt3.io.views import peek_sizes, read_views
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel, open_model, shipped_backbones
from vggt3.types import Views

Rows = list[tuple[str, str]]


def map_scene(
    photos: list[str],
    *,
    output: Annotated[Path, "-o"],
    overwrite: bool = False,
    half: bool = False,
    limit: str = LIMIT,
    model: ModelChoice = ModelChoice(),
    read: ReadOptions = ReadOptions(),
    run: RunOptions = RunOptions(),
) -> None:
    """Turn photos into a scene file, in which vggt3 localize finds further photos.

    OUT is one file, such as scene.vggt3; it appears whole or not at all.

    Args:
        photos: A folder (not its subfolders), a glob, photos, a text file of paths, or one video.
        output: The scene file to write.
        overwrite: Replace an earlier scene at OUT.
        half: Store states and camera tokens as float16, half the size; prints what that changes.
        limit: Bytes that the scene's memory may take, such as 4G. Only softmax grows with photos.
    """
    check_scene_path(output, overwrite)
    loaded = open_model(model, run.resolve_device())
    engine = SceneEngine(loaded.model, run)
    long_side = read.long_side or loaded.model.config.long_side
    start = time.perf_counter()
    with Bars(loaded.model.config.layers) as bars:
        sizes = peek_sizes(_source(photos), long_side)
        if sizes:
            engine.plan_sizes(sizes)
            check_size(engine, sizes, limit)
        found = read_photos(photos, read, long_side, bars)
        record = {"long_side": long_side, "choice": remembered(model), "model": loaded.description}
        scene = map_taken(engine, Taken.of(found), limit, bars.observe, record)
        gap = half_gap(engine, scene, found.views()) if half else None
        saved = scene.save(output, half=half, overwrite=overwrite)
        rows = scene_rows(scene, saved, loaded, engine)
        if gap is not None:
            rows.append(("half precision", half_error(saved, gap)))
    rows.append(("seconds", f"{time.perf_counter() - start:.2f}"))
    notes(found, loaded, scene.record.get("notes", []))
    print_table(str(output), rows)


def _source(photos: list[str]) -> str | list[str]:
    return photos[0] if len(photos) == 1 else photos


def read_photos(photos: list[str], read: ReadOptions, long_side: int, bars: Bars) -> PhotoSet:
    """The photos that were named."""
    return read_views(
        _source(photos),
        long_side=long_side,
        every=read.every,
        frames=read.frames,
        strict=read.strict,
        progress=bars.reading,
    )


def notes(photos: PhotoSet, loaded: LoadedModel, more: Sequence[str] = ()) -> None:
    """Say on stderr what a person should know."""
    for line in (
        photos.skipped_line(),
        *more,
        None if loaded.trained else "the weights are random: this shows the machinery alone",
    ):
        if line:
            print("vggt3: note: " + " ".join(line.split()), file=sys.stderr)


def remembered(choice: ModelChoice) -> dict[str, Any]:
    """What a scene file may say of the model's choice: names, and no path of this machine."""
    known = choice.weights if choice.weights in shipped_backbones() else None
    return {
        "weights": known,
        "preset": choice.preset,
        "seed": choice.seed,
        "attention": choice.attention,
        "attention_options": dict(choice.attention_options),
    }


def choice_for(scene: SceneMemory, given: ModelChoice) -> ModelChoice:
    """The model that the user names; what is not named, as the scene was mapped."""
    told = scene.record.get("choice", {})
    if given.weights is None and given.preset is None and given.adapter is None:
        fields = ("weights", "preset", "seed")
        given = replace(given, **{name: told.get(name, getattr(given, name)) for name in fields})
    if given.attention is None and given.adapter is None:
        options = {**told.get("attention_options", {}), **given.attention_options}
        # A scene mapped by what was the default then knows the name that this stood for.
        name = told.get("attention") or scene.identity.layers[0].name
        given = replace(given, attention=name, attention_options=options)
    return given


def open_for(scene: SceneMemory, given: ModelChoice, run: RunOptions) -> LoadedModel:
    """The scene's model with the scene's options, or an error that says which one it was."""
    choice, device = choice_for(scene, given), run.resolve_device()
    loaded = open_model(choice, device)
    found = identity_of(loaded.model)
    scene.identity.hold(
        found,
        f"the model {loaded.description} (name the scene's with --weights and --adapter: "
        f"{scene.record.get('model', scene.identity.config.preset)})",
    )
    # Its tensors are the scene's, so an option that still differs leaves them alone.
    others = {option: mine for _, option, mine, _ in scene.identity.differences(found)}
    if not others.keys() - given.attention_options.keys():
        return loaded
    options = {**choice.attention_options, **others, **given.attention_options}
    return open_model(replace(choice, attention_options=options), device)


def scene_rows(scene: SceneMemory, saved: Saved, loaded: LoadedModel, engine: SceneEngine) -> Rows:
    """What to show of a scene that was written."""
    grows = "" if scene.bounded else ", grows with the photos"
    cameras = scene.nbytes - scene.state_bytes
    marks = scene.familiarity
    return [
        ("photos", str(len(scene))),
        ("tokens", f"{scene.tokens:,}"),
        ("states", f"{show_bytes(scene.state_bytes)}{grows}"),
        ("camera tokens", show_bytes(cameras)),
        ("file", show_bytes(saved.nbytes)),
        ("recall", f"own photos {marks.own:.3f}, elsewhere {marks.elsewhere:.3f}"),
        ("model", loaded.description),
        ("device", f"{engine.device}, {str(engine.dtype).removeprefix('torch.')}"),
    ]


def half_gap(engine: SceneEngine, scene: SceneMemory, views: Views) -> str:
    """What float16 changes in the answers about a few mapped photos."""
    group = views.groups[0]
    chosen = spread_out(len(group.ids), STRANGERS)
    asked = Views.from_tensor(group.images[:, chosen])
    options = QueryOptions(dense=False)
    whole, halved = (Localizer(engine, x, options) for x in (scene, scene.halved()))
    gap = gap_between(whole, halved, asked)
    return f"{len(chosen)} photos asked: {gap.describe()}"


def half_error(saved: Saved, gap: str) -> str:
    """What float16 changes in all."""
    return f"tensors {saved.error:.1e} relative; {gap}"


def check_confidence(names: list[str], confidence: list[float], least: float) -> str | None:
    """A line about photos that probably do not show the mapped place, or None."""
    low = [(n, c) for n, c in zip(names, confidence, strict=True) if c < least]
    if not low:
        return None
    shown = ", ".join(f"{n} ({c:.2f})" for n, c in low[:8])
    rest = f" and {len(low) - 8} more" if len(low) > 8 else ""
    return (
        f"{len(low)} of {len(names)} photos probably do not show the mapped place (confidence "
        f"below {least:g}): {shown}{rest}"
    )
