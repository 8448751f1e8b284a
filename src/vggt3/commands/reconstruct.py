"""``vggt3 reconstruct``: photos or a video become a folder with a scene."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from vggt3 import checks
from vggt3.attention.kernels.softmax import Call, choose
from vggt3.commands.progress import Bars
from vggt3.inference.engine import Engine, Outcome
from vggt3.inference.options import RunOptions, show_bytes
from vggt3.inference.plan import Plan
from vggt3.io.photo_set import PhotoSet
from vggt3.io.scene_writer import SceneOptions, SceneSummary, SceneWriter
from vggt3.io.sources import is_video
from vggt3.io.staging import check_out, staged
from vggt3.io.views import peek_sizes, read_views
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel, backends, open_model


@dataclass(frozen=True)
class ReadOptions:
    """How photos are read."""

    long_side: int | None = None
    """Pixels of a photo's long side in the model; what the weights were trained for by default."""
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

    OUT gets cameras.json, scene.npz, points.ply and preview.png, whole or not at all.

    Args:
        photos: A folder (not its subfolders), a glob, photos, a text file of paths, or one video.
        output: The folder to write.
        overwrite: Replace an earlier scene in OUT.
        plan: Print how the scene would be computed and what memory it takes, and stop.
    """
    checks.require(plan or output is not None, "--output", "be given (-o OUT)", "nothing")
    if output is not None:
        check_out(output, overwrite)
    loaded = open_model(model, run.resolve_device())
    engine = Engine(loaded.model, run)
    work = Work(photos, output or Path(), loaded, engine, read, scene)
    if not loaded.trained:
        work.notes.append("the weights are random: this shows the machinery, not the scene")
    with Bars(loaded.model.config.layers) as bars:
        if plan:
            _print_table("plan", _plan(work, bars).describe())
            return
        found, reading = _read(work, bars)
        paths = [photo.path for photo in found.photos]
        with staged(work.output, overwrite, keep=paths) as folder:
            rows = _run(work, found, folder, reading, bars)
    for note in work.notes:
        print("vggt3: note: " + " ".join(note.split()), file=sys.stderr)
    _print_table(f"{work.output}", rows)


def _plan(work: Work, bars: Bars) -> Plan:
    """The plan, from the headers of photos alone; a video's frames are read to be counted."""
    read = work.read
    plain = read.every is None and read.frames is None
    if plain and not any(is_video(photo) for photo in work.photos):
        sizes = _peek(work)
        if sizes:
            return work.engine.plan_sizes(sizes)
    return work.engine.plan(_read(work, bars)[0].views())


def _peek(work: Work) -> list[tuple[int, int]]:
    source = work.photos[0] if len(work.photos) == 1 else work.photos
    return peek_sizes(source, work.read.long_side or work.model.model.config.long_side)


def _read(work: Work, bars: Bars) -> tuple[PhotoSet, float]:
    """The photos, and the seconds it took. What cannot fit stops before a pixel is read."""
    start = time.perf_counter()
    source = work.photos[0] if len(work.photos) == 1 else work.photos
    long_side = work.read.long_side or work.model.model.config.long_side
    sizes = _peek(work)
    if sizes:
        work.engine.plan_sizes(sizes)
    found = read_views(
        source,
        long_side=long_side,
        every=work.read.every,
        frames=work.read.frames,
        strict=work.read.strict,
        progress=bars.reading,
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
    with SceneWriter(folder, photos, work.scene) as writer:
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
    rows = [("views", f"{len(photos)} ({shown})")]
    if summary.unposed:
        rows.append(("without a pose", str(summary.unposed)))
    rows += [("points", f"{summary.point_count:,}"), ("weights", work.model.description)]
    rows += [("attention", backends(engine.model))]
    rows += [("kernel", _kernel(engine)), ("device", _device(engine))]
    rows += [(f"seconds {name}", f"{value:.2f}") for name, value in seconds.items()]
    return [*rows, ("peak memory", show_bytes(outcome.peak_bytes))]


def _kernel(engine: Engine) -> str:
    width = engine.model.config.width // engine.model.config.heads
    kernel, reason = choose("auto", Call(engine.device, engine.dtype, width))
    return f"{kernel.name} within views ({reason})"


def _device(engine: Engine) -> str:
    precision = str(engine.dtype).removeprefix("torch.")
    return f"{engine.device}, {precision}"


def _print_table(title: str, rows: list[tuple[str, str]]) -> None:
    shown = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        shown.add_row(name, value)
    Console().print(shown)
