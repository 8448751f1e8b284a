"""``vggt3 evaluate``: a model sits an exam; two runs are compared."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from vggt3 import checks
from vggt3.evaluation.examine import Examination, ExamOptions, exam_engine, open_examined
from vggt3.evaluation.localisation_exam import (
    HEADS,
    LocalisationExam,
    LocalisationOptions,
    paired,
    verdict,
)
from vggt3.evaluation.localisation_exam import NAME as EXAM
from vggt3.evaluation.pictures import Pictures
from vggt3.evaluation.protocols.catalogue import PROTOCOLS, protocol
from vggt3.evaluation.protocols.trial import Trial, TrialOptions
from vggt3.evaluation.record import Record, read_record, unlike
from vggt3.evaluation.record import compare as compare_records
from vggt3.evaluation.sitting import Sitting
from vggt3.evaluation.tables import Table, across, by_scene, compared, label, overall
from vggt3.evaluation.tables import markdown as as_markdown
from vggt3.evaluation.tables import origin as told_of
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel

SAY_SECONDS = 60.0
ROOMS = {
    key: label(key)
    for key in ("auc@30", "rra@5", "rra@15", "rra@30", "rta@5", "rta@15", "rta@30", "absrel",
                "delta", "cd", "nc", "cd head", "nc head")
}  # fmt: skip
"""Scores of rooms-v1 on the screen, in order; the file has them all."""


def rooms_v1(
    *,
    output: Annotated[Path | None, "-o"] = None,
    markdown: bool = False,
    device: str = "auto",
    precision: str = "auto",
    model: ModelChoice = ModelChoice(),
    exam: ExamOptions = ExamOptions(),
) -> None:
    """Score a model on rooms-v1: procedural scenes that no training sees.

    Prints means over scenes with bootstrap 95 % intervals, and what the trivial guess (every
    camera looks the same way, one step to the right of the last) scores. Fast weights make 2
    sweeps unless --attention.sweeps says otherwise.

    Args:
        output: JSON file of every score of every scene. If it is there, its scenes are not
            computed again; one of another model is refused.
        markdown: Print a Markdown table.
        device: cpu, cuda, cuda:1, mps, …; auto takes an accelerator if there is one.
        precision: fp32, or bf16 (parameters and products); auto is bf16 on CUDA, else fp32.
    """
    run = RunOptions(device=device, precision=precision)
    loaded = open_examined(model, run.resolve_device())
    examination = Examination(
        exam_engine(loaded.model, run), exam, output=output, origin=_origin(loaded)
    )
    _say_of(loaded, examination.pictures)
    _say_undrawn(examination, exam.pictures)
    _run(examination)
    shown = examination.record.only(examination.tasks)
    _print(loaded.description, across(shown, ROOMS), markdown=markdown)
    _print_origin(shown, markdown=markdown)


def rooms_v1_localise(
    *,
    output: Annotated[Path | None, "-o"] = None,
    markdown: bool = False,
    device: str = "auto",
    precision: str = "auto",
    model: ModelChoice = ModelChoice(),
    exam: LocalisationOptions = LocalisationOptions(),
) -> None:
    """Map 100 photos of rooms-v1's scenes, localise 50 others, and set errors beside the map's.

    Prints medians over scenes and what queries' errors are of the map's own, over all scenes and
    over those whose map has an AUC@30 of at least 50. Fast weights make 2 sweeps unless
    --attention.sweeps says otherwise.

    Args:
        output: JSON file of every score of every scene. If it is there, its scenes are not
            computed again; one of another model is refused.
        markdown: Print Markdown.
        device: cpu, cuda, cuda:1, mps, …; auto takes an accelerator if there is one.
        precision: fp32, or bf16 (parameters and products); auto is bf16 on CUDA, else fp32.
    """
    run = RunOptions(device=device, precision=precision)
    loaded = open_examined(model, run.resolve_device())
    sitting = LocalisationExam(
        SceneEngine(loaded.model, run), exam, output=output, origin=_origin(loaded)
    )
    _say_of(loaded, sitting.pictures)
    _run(sitting)
    shown = sitting.record.only(sitting.tasks)
    _print(f"localisation in rooms-v1; {loaded.description}", verdict(shown), markdown=markdown)
    scenes = by_scene(shown, EXAM, list(HEADS), None if markdown else HEADS)
    title = "by scene: medians of the map's views and of queries, and queries' over the map's"
    for head, table in (("ratios", paired(shown)), (title, scenes)):
        print(end="\n" * markdown)
        _print(head, table, markdown=markdown)
    _print_origin(shown, markdown=markdown)


def compare(ours: Path, theirs: Path, *, markdown: bool = False) -> None:
    """Compare two runs of one exam, scene by scene.

    Prints means over the scenes that both have, and OURS − THEIRS with its paired bootstrap
    95 % interval; a difference whose interval excludes 0 is more than chance. Of fewer than
    10 scenes no interval says that.

    Args:
        ours: A file that evaluate wrote.
        theirs: Another.
        markdown: Print a Markdown table.
    """
    ours_record, theirs_record = read_record(ours), read_record(theirs)
    found = compare_records(ours_record, theirs_record)
    for line in unlike(ours_record, theirs_record):
        print(f"vggt3: note: {line}", file=sys.stderr)
    table = compared(found, ours_record.unit)
    _print(f"{ours} − {theirs}", table, markdown=markdown)


def command_of(name: str) -> Callable[..., None]:
    """The command line of one protocol."""

    def evaluate(
        *,
        data: Path,
        output: Annotated[Path | None, "-o"] = None,
        markdown: bool = False,
        device: str = "auto",
        precision: str = "auto",
        model: ModelChoice = ModelChoice(),
        trial: TrialOptions = TrialOptions(),
    ) -> None:
        run = RunOptions(device=device, precision=precision)
        loaded = open_examined(model, run.resolve_device())
        engine = exam_engine(loaded.model, run)
        origin = _origin(loaded)
        chosen = protocol(name)
        sitting = Trial(engine, chosen, data, trial, output=output, origin=origin)
        for note in sitting.notes:
            _note(note)
        _say_of(loaded)
        _say_undrawn(sitting, trial.pictures)
        _run(sitting)
        _check_scored(sitting, data)
        shown = sitting.record.only(sitting.tasks)
        _print(f"{chosen.about}; {loaded.description}", overall(shown, name), markdown=markdown)
        print(end="\n" * markdown)
        _print("by scene", by_scene(shown, name), markdown=markdown)
        _print_origin(shown, markdown=markdown)

    about = PROTOCOLS[name].about
    evaluate.__doc__ = EVALUATE.format(about=about[0].upper() + about[1:])
    return evaluate


EVALUATE = """{about}.

    Prints mean and median over scenes with bootstrap 95 % intervals, every scene, and what was
    run. Fast weights make 2 sweeps unless --attention.sweeps says otherwise.

    Args:
        data: The folder that the data set lies in.
        output: JSON file of every score of every scene. If it is there, its scenes are not
            computed again; one of another model or protocol is refused.
        markdown: Print Markdown for a paper.
        device: cpu, cuda, cuda:1, mps, …; auto takes an accelerator if there is one.
        precision: fp32, or bf16 (parameters and products); auto is bf16 on CUDA, else fp32.
"""


SUBCOMMANDS: Mapping[str, Callable[..., object]] = {
    "rooms-v1": rooms_v1,
    EXAM: rooms_v1_localise,
    **{name: command_of(name) for name in PROTOCOLS},
    "compare": compare,
}


def _origin(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "command": shlex.join(["vggt3", *sys.argv[1:]]),
        "model": loaded.description,
        "fingerprint": loaded.fingerprint,
    }


def _say_of(loaded: LoadedModel, pictures: Pictures | None = None) -> None:
    """What a person should know before the scores."""
    if not loaded.trained:
        _note("the weights are random: this shows the machinery, not a score")
    if pictures is not None and not pictures.canonical:
        _note("pictures rendered on the GPU: these scores are not canonical")


def _say_undrawn(sitting: Sitting, pictures: Path | None) -> None:
    """That scenes are drawn as they are scored, and these are scored."""
    total, there = len(sitting.tasks), len(sitting.tasks) - len(sitting.waiting)
    if pictures is not None and there:
        told = f"{there} of {total} scene{'s' if total != 1 else ''} scored already in"
        told += f" '{sitting.record.path}' and not drawn"
        _note(f"{told}: leave -o out, or give another file, to draw them")


def _run(sitting: Sitting) -> None:
    """Compute what is waiting; Ctrl-C says what is kept."""
    try:
        _watched(sitting)
    except KeyboardInterrupt:
        record = sitting.record
        kept = f", {len(record.rows)} scenes are kept in {record.path}" if record.path else ""
        print(f"vggt3: interrupted{kept}", file=sys.stderr)
        raise SystemExit(130) from None


def _check_scored(sitting: Trial, data: Path) -> None:
    """Raise DataError where no scene had anything to compare with; name those that had not."""
    empty, wanted = sitting.unscored, "have known depth in the views that are scored"
    named = ", ".join(empty[:4]) + ", …" * (len(empty) > 4)
    if empty and len(empty) == len(sitting.tasks):
        got = f"none in any of its {len(empty)} scenes ({named})"
        checks.fail(f"--data '{data}'", wanted, got, error=checks.DataError)
    if empty:
        _note(f"{len(empty)} of {len(sitting.tasks)} scenes must {wanted} to count: {named}")


def _watched(sitting: Sitting) -> None:
    """With a bar on a terminal, and a line now and then elsewhere."""
    done, total = len(sitting.tasks) - len(sitting.waiting), len(sitting.tasks)
    if not sys.stderr.isatty():
        said = time.monotonic()
        for number, row in enumerate(sitting.rows(), done + 1):
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                print(f"{number} of {total} scenes, {row.set}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("scenes", total=total, completed=done)
        for row in sitting.rows():
            bars.update(bar, advance=1, description=f"{row.set} scene {row.scene}")


def _print(title: str, table: Table, *, markdown: bool) -> None:
    head, rows = table
    if markdown:
        print(as_markdown(table))
        return
    # A bare GPU machine may have no rich: its log is Markdown.
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable(title=title, title_justify="left")
    for name in head:
        shown.add_column(name, overflow="fold")  # on a narrow screen whole words, in pieces
    for cells in rows:
        shown.add_row(*cells)
    Console(markup=False).print(shown)


def _print_origin(record: Record, *, markdown: bool) -> None:
    """What was run, below its scores."""
    print(end="\n" * markdown)
    print("\n".join(f"- {line}" if markdown else line for line in told_of(record)))


def _note(text: str) -> None:
    print(f"vggt3: note: {text}", file=sys.stderr)
