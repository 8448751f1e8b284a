"""``vggt3 evaluate``: a model sits an exam; two runs are compared."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from vggt3.evaluation.examine import Examination, ExamOptions, exam_engine, open_examined
from vggt3.evaluation.intervals import Interval
from vggt3.evaluation.record import Record, read_record
from vggt3.evaluation.record import compare as compare_records
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice

SAY_SECONDS = 60.0
FEWEST = 10
"""Scenes below which resampling them says nothing about chance."""
DIGITS = {"absrel": 3, "accuracy": 3, "completeness": 3, "cd": 3, "nc": 3, "still": 1}
SHOWN = {
    "auc@30": "AUC@30 %",
    "rra@5": "RRA@5 %",
    "rra@15": "RRA@15 %",
    "rra@30": "RRA@30 %",
    "rta@5": "RTA@5 %",
    "rta@15": "RTA@15 %",
    "rta@30": "RTA@30 %",
    "absrel": "AbsRel",
    "delta": "δ < 1.25 %",
    "cd": "CD m",
    "nc": "NC",
    "cd head": "CD m, point head",
    "nc head": "NC, point head",
}
"""Scores on the screen, in order; the file has them all."""


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
        precision: fp32, or bf16 (matrix products under autocast); auto is bf16 on CUDA, else fp32.
    """
    run = RunOptions(device=device, precision=precision)
    loaded = open_examined(model, run.resolve_device())
    origin = {
        "command": shlex.join(["vggt3", *sys.argv[1:]]),
        "model": loaded.description,
        "fingerprint": loaded.fingerprint,
    }
    examination = Examination(exam_engine(loaded.model, run), exam, output=output, origin=origin)
    if not loaded.trained:
        _note("the weights are random: this shows the machinery, not a score")
    if not examination.pictures.canonical:
        _note("pictures rendered on the GPU: these scores are not canonical")
    try:
        _run(examination)
    except KeyboardInterrupt:
        kept = f"{len(examination.record.rows)} scenes are kept in {output}" if output else ""
        print(f"vggt3: interrupted{', ' + kept if kept else ''}", file=sys.stderr)
        raise SystemExit(130) from None
    shown = examination.record.only(examination.tasks)
    _print(loaded.description, *_summary(shown), markdown=markdown)


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
    head = ["set", "scenes", "score", "ours", "theirs", "difference", "excludes 0"]
    rows = [
        [
            found.set,
            str(found.difference.count),
            SHOWN[found.score],
            _number(found.score, found.ours),
            _number(found.score, found.theirs),
            _cell(found.score, found.difference),
            _verdict(found.difference),
        ]
        for found in compare_records(read_record(ours), read_record(theirs))
        if found.score in SHOWN
    ]
    _print(f"{ours} − {theirs}", head, rows, markdown=markdown)


SUBCOMMANDS: Mapping[str, Callable[..., object]] = {"rooms-v1": rooms_v1, "compare": compare}


def _run(examination: Examination) -> None:
    """Compute what is waiting, with a bar on a terminal and a line now and then elsewhere."""
    done = len(examination.tasks) - len(examination.waiting)
    total = len(examination.tasks)
    if not sys.stderr.isatty():
        said = time.monotonic()
        for number, row in enumerate(examination.rows(), done + 1):
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                print(f"{number} of {total} scenes, {row.set}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("scenes", total=total, completed=done)
        for row in examination.rows():
            bars.update(bar, advance=1, description=f"{row.set} scene {row.scene}")


def _summary(record: Record) -> tuple[list[str], list[list[str]]]:
    """Scores down, sets across; each cell a mean and its interval."""
    names = record.sets
    found = {name: record.intervals(name) for name in names}
    trivial = {name: record.intervals(name, trivial=True)["auc@30"] for name in names}
    keys = [key for key in SHOWN if any(key in scores for scores in found.values())]
    rows = [[SHOWN[key], *(_cell(key, found[name][key]) for name in names)] for key in keys]
    rows.insert(1, ["AUC@30 %, trivial guess", *(_cell("auc@30", trivial[n]) for n in names)])
    rows.append(["scenes", *(str(len(record.of(name))) for name in names)])
    for label, key in (("still pairs", "still"), ("pairs", "pairs")):
        totals = [sum(row.scores[key] for row in record.of(n).values()) for n in names]
        rows.append([label, *(f"{total:.0f}" for total in totals)])
    if "cd" in keys:
        lost = [sum(math.isnan(row.scores["cd"]) for row in record.of(n).values()) for n in names]
        if any(lost):
            rows.append(["scenes without a cloud", *map(str, lost)])
    return ["mean [95 % interval]", *names], rows


def _verdict(difference: Interval) -> str:
    if difference.count < FEWEST:
        return "too few"
    return "yes" if difference.excludes_zero else "no"


def _number(key: str, value: float) -> str:
    digits = DIGITS.get(key.partition(" ")[0], 1)
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _cell(key: str, value: Interval) -> str:
    return f"{_number(key, value.mean)} [{_number(key, value.low)}, {_number(key, value.high)}]"


def _print(title: str, head: list[str], rows: list[list[str]], *, markdown: bool) -> None:
    if markdown:
        lines = [head, ["---"] * len(head), *rows]
        print("\n".join("| " + " | ".join(cells) + " |" for cells in lines))
        return
    # A bare GPU machine may have no rich: its log is Markdown.
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, title=title, title_justify="left")
    for cells in rows:
        table.add_row(*cells)
    Console(markup=False).print(table)


def _note(text: str) -> None:
    print(f"vggt3: note: {text}", file=sys.stderr)
