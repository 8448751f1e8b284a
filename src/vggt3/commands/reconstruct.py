"""``vggt3 reconstruct``: photos or a video become a folder with a scene."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from vggt3 import checks
from vggt3.attention.kernels.softmax import Call, choose
from vggt3.commands.progress import Bars
from vggt3.commands.tables import print_table
from vggt3.inference.engine import Engine, Outcome
from vggt3.inference.options import RunOptions, show_bytes
from vggt3.inference.plan import Plan
from vggt3.inference.ranks import Crew, joined
from vggt3.io.photo_set import PhotoSet, skipped_line
from vggt3.io.photos import peek
from vggt3.io.scene_writer import SceneOptions, SceneSummary, SceneWriter
from vggt3.io.shared_reading import read_photos_shared, read_video_shared
from vggt3.io.shared_staging import staged_together
from vggt3.io.sources import names_video
from vggt3.io.staging import check_out
from vggt3.io.views import peek_sizes, read_views
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel, backends, open_model


@dataclass(frozen=True)
class ReadOptions:
    """How photos are read."""

    long_side: int | None = None
    """Pixels of a photo's long side in the model; by default what the weights were trained for
    (of photos for a scene that was mapped: what that was read at)."""
    every: float | None = None
    """Take a frame of a video each so many seconds."""
    frames: int | None = None
    """Take this many frames of a video, evenly spaced."""
    strict: bool = False
    """Stop at the first photo that cannot be read, rather than leave it out."""

    def __post_init__(self) -> None:
        side = self.long_side
        checks.require(side is None or side >= 14, "--long-side", "be at least 14", side)


@dataclass(frozen=True)
class Work:
    """All that a run of the command was asked to do."""

    crew: Crew
    photos: list[str]
    output: Path
    model: LoadedModel
    engine: Engine
    read: ReadOptions
    scene: SceneOptions
    notes: list[str] = field(default_factory=list)


def reconstruct(
    photos: list[str],
    *,
    output: Annotated[Path | None, "-o"] = None,
    overwrite: bool = False,
    plan: bool = False,
    model: ModelChoice = ModelChoice(),
    read: ReadOptions = ReadOptions(),
    run: RunOptions = RunOptions(),
    scene: SceneOptions = SceneOptions(),
) -> None:
    """Turn photos or a video into cameras, depth maps and a point cloud.

    OUT gets cameras.json, scene.npz, points.ply and preview.png, whole or not at all. For a scene
    on N GPUs: torchrun --nproc-per-node N -m vggt3 reconstruct PHOTOS -o OUT.

    Args:
        photos: A folder (not its subfolders), a glob, photos, a text file of paths, or one video.
        output: The folder to write.
        overwrite: Replace an earlier scene in OUT.
        plan: Print how the scene would be computed and what memory it takes, and stop.
    """
    checks.require(plan or output is not None, "--output", "be given (-o OUT)", "nothing")
    with joined(run) as crew:
        if output is not None:
            check_out(output, overwrite)
        loaded = open_model(model, crew.run.resolve_device())
        engine = Engine(loaded.model, crew.run, crew.world)
        work = Work(crew, photos, output or Path(), loaded, engine, read, scene)
        if not loaded.trained:
            work.notes.append("the weights are random: this shows the machinery, not the scene")
        with Bars(loaded.model.config.layers, crew.speaks) as bars:
            title, rows = _work(work, bars, plan=plan, overwrite=overwrite)
    if crew.speaks:
        for note in work.notes:
            print("vggt3: note: " + " ".join(note.split()), file=sys.stderr)
        print_table(title, rows)


def _work(
    work: Work, bars: Bars, *, plan: bool, overwrite: bool
) -> tuple[str, list[tuple[str, str]]]:
    """Plan or reconstruct; the title and the rows of the table to show."""
    if plan:
        return "plan", _plan(work, bars).describe()
    found, reading = _read(work, bars)
    paths = [photo.path for photo in found.photos]
    watch = work.crew.watch
    undo = None if watch is None else watch.undo
    with staged_together(work.crew.world, work.output, overwrite, paths, undo) as folder:
        return f"{work.output}", _run(work, found, folder, reading, bars)


def _plan(work: Work, bars: Bars) -> Plan:
    """The plan, from the headers of photos alone; a video's frames are read to be counted."""
    read = work.read
    plain = read.every is None and read.frames is None
    if plain and not names_video(work.photos):
        found = peek(_source(work), _long_side(work), strict=read.strict)
        if found.sizes:
            work.notes.extend(filter(None, [skipped_line(found.skipped)]))
            return work.engine.plan_sizes(found.sizes)
    return work.engine.plan(_read(work, bars)[0].views())


def _source(work: Work) -> str | list[str]:
    return work.photos[0] if len(work.photos) == 1 else work.photos


def _long_side(work: Work) -> int:
    return work.read.long_side or work.model.model.config.long_side


def _read(work: Work, bars: Bars) -> tuple[PhotoSet, float]:
    """The photos, and the seconds it took. What cannot fit stops before a pixel is read."""
    start = time.perf_counter()
    source, long_side = _source(work), _long_side(work)
    sizes = peek_sizes(source, long_side)
    if sizes:
        work.engine.plan_sizes(sizes)
    world, strict = work.crew.world, work.read.strict
    alone = partial(
        read_views,
        source,
        long_side=long_side,
        every=work.read.every,
        frames=work.read.frames,
        strict=strict,
        progress=bars.reading,
    )
    plain = work.read.every is None and work.read.frames is None
    if world.size == 1:
        found = alone()
    elif names_video(work.photos) or not plain:  # or an option that only a video has
        found = read_video_shared(world, alone)
    else:
        found = read_photos_shared(
            world, source, long_side=long_side, strict=strict, progress=bars.reading
        )
    line = found.skipped_line()
    if line:
        work.notes.append(line)
    if len(found) == 1:
        work.notes.append("one photo has no baseline: the scale of its depth is arbitrary")
    return found, time.perf_counter() - start


def _run(
    work: Work, photos: PhotoSet, folder: Path, reading: float, bars: Bars
) -> list[tuple[str, str]]:
    """Reconstruct into ``folder``; the rows of the table to show."""
    start = time.perf_counter()
    with SceneWriter(folder, photos, work.scene, work.crew.world) as writer:
        outcome = work.engine.run(photos.views(), writer, bars.observe)
        work.notes.extend(outcome.notes)
        before = time.perf_counter()
        summary = writer.finish()
    seconds = {"reading": reading, **outcome.seconds, "writing": time.perf_counter() - before}
    seconds["in all"] = reading + time.perf_counter() - start
    return _rows(work, photos, outcome, summary, seconds)


def _rows(
    work: Work,
    photos: PhotoSet,
    outcome: Outcome,
    summary: SceneSummary,
    seconds: dict[str, float],
) -> list[tuple[str, str]]:
    engine = work.engine
    sizes = sorted({f"{width}×{height}" for height, width in photos.sizes})
    shown = ", ".join(sizes[:3]) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
    world = work.crew.world
    rows = [("views", f"{len(photos)} ({shown})")]
    if world.size > 1:
        rows.append(("processes", str(world.size)))
    if summary.unposed:
        rows.append(("without a pose", str(summary.unposed)))
    rows += [("points", f"{summary.point_count:,}"), ("weights", work.model.description)]
    rows += [("attention", backends(engine.model))]
    rows += [("kernel", _kernel(engine)), ("device", _device(engine))]
    rows += [(f"seconds {name}", f"{value:.2f}") for name, value in seconds.items()]
    peak = max(world.exchange(outcome.peak_bytes))
    return [*rows, ("peak memory", show_bytes(peak) + (" in one" if world.size > 1 else ""))]


def _kernel(engine: Engine) -> str:
    width = engine.model.config.width // engine.model.config.heads
    kernel, reason = choose("auto", Call(engine.device, engine.dtype, width))
    return f"{kernel.name} within views ({reason})"


def _device(engine: Engine) -> str:
    precision = str(engine.dtype).removeprefix("torch.")
    return f"{engine.device}, {precision}"
