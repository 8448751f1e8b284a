"""``vggt3 benchmark``: time, memory and operations of every combination, beside other people's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from vggt3 import checks
from vggt3.evaluation.benchmark import rows as files
from vggt3.evaluation.benchmark.combinations import Combinations
from vggt3.evaluation.benchmark.measure import Benchmark
from vggt3.evaluation.benchmark.plot import draw
from vggt3.evaluation.benchmark.rows import OURS, Row, Series
from vggt3.inference.options import RunOptions, show_bytes
from vggt3.inference.ranks import joined
from vggt3.io.staging import check_writable

STAGES = ("encode", "layers", "cameras", "heads")
Say = Callable[[str], None]
HEAD = ("views", "seconds", *STAGES, "memory", "TFLOP", "of matmul")


def benchmark(
    *,
    output: Annotated[Path | None, "-o"] = None,
    plot: Path | None = None,
    compare: Path | None = None,
    again: bool = False,
    markdown: bool = False,
    what: Combinations = Combinations(),
    run: RunOptions = RunOptions(),
) -> int:
    """Measure what a scene costs: seconds by stage, memory, operations.

    Every combination of backends, numbers of views, sweeps and image sizes is run on random
    images that lie on the device. A combination that does not fit says so, and the others go on;
    one whose kernels are not equal to their references is not timed (exit code 1). Of a scene on N
    GPUs: torchrun --nproc-per-node N -m vggt3 benchmark.

    Args:
        output: JSON lines, a row a combination, each written as it is found. Rows that are there
            already are not measured again.
        plot: PNG of time and memory against the number of views, both axes logarithmic.
        compare: JSON lines with other people's figures, to be shown beside.
        again: Measure rows that are there once more; the last one counts.
        markdown: Print a Markdown table.
    """
    with joined(run) as crew:
        if plot is not None:
            _check_plot(plot)
        theirs = files.read_rows(compare) if compare is not None else []
        command = shlex.join(["vggt3", *sys.argv[1:]])
        work = Benchmark(what, crew.run, output, again, command, crew.world)
        _run(work, quiet=not crew.speaks)
    lines = files.series([*work.rows, *theirs])
    title = _title(work)
    if crew.speaks:
        _print(title, lines, markdown=markdown)
    if crew.speaks and plot is not None:
        draw(plot, lines, title)
    refused = [row for row in work.rows if (row.problem or "").startswith("refused")]
    return 1 if refused else 0


def _run(work: Benchmark, *, quiet: bool) -> None:
    """Measure what is waiting; what has been measured survives Ctrl-C."""
    say = _say_nothing if quiet else _say
    _announce(work, say)
    try:
        _measure(work, say)
    except KeyboardInterrupt:
        kept = f"; {_rows(len(work.rows))} kept in {work.output}" if work.output else ""
        say(f"vggt3: interrupted{kept if work.rows else ', no row is measured yet'}")
        raise SystemExit(130) from None


def _check_plot(plot: Path) -> None:
    name = f"--plot '{plot}'"
    checks.require(plot.suffix.lower() == ".png", "--plot", "end in .png", f"'{plot}'")
    checks.require(not plot.is_dir(), name, "be a file", "a folder")
    # It is drawn beside its place, then moved there: the folder is what must take a new file.
    check_writable(plot.with_name(f".{plot.stem}-trial.png"), name)


def _announce(work: Benchmark, say: Say) -> None:
    """How much there is to do, before it is begun."""
    if work.kept:
        commits = {work.found[task.key].facts.get("commit") for task in work.kept}
        named = ", ".join(sorted(str(commit)[:12] for commit in commits if commit)) or "unknown"
        them = "them" if len(work.kept) > 1 else "it"
        there = f"{_rows(len(work.kept))} there already (commit {named}; --again repeats {them})"
        say(there)
    if work.waiting:
        rate = f"{work.rate / 1e12:.3g} TFLOP/s in a matrix product here"
        about = _duration(work.expected_seconds())
        rows = "1 row" if len(work.waiting) == 1 else f"{len(work.waiting)} rows"
        say(f"{rows} to measure, about {about}; {rate}")


def _measure(work: Benchmark, say: Say) -> None:
    done = len(work.kept)
    for number, row in enumerate(work.measure(), done + 1):
        told = row.problem or f"{row.seconds:.3g} s"
        say(f"{number}/{len(work.tasks)} {_what(row)}: {told}")


def _what(row: Row) -> str:
    sweeps = row.facts["sweeps"]
    passes = "" if sweeps is None else f", sweeps {sweeps}"
    size = "×".join(map(str, row.facts["size"]))
    return f"{row.facts['attention']}{passes}, {_views(row)} of {size}"


def _views(row: Row) -> str:
    return f"{row.views} view{'s' if row.views != 1 else ''}"


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"


def _title(work: Benchmark) -> str:
    facts = work.tasks[0].facts
    sizes = sorted({tuple(task.size) for task in work.tasks})
    shown = ", ".join(f"{height}×{width}" for height, width in sizes)
    told = f"{facts['model']}  ·  {shown}  ·  {facts['precision']}  ·  {facts['device']}"
    return told + (f"  ·  {facts['world']} processes" if facts["world"] > 1 else "")


def _print(title: str, lines: Sequence[Series], *, markdown: bool) -> None:
    """A block a line of the plot: its label, and a row a number of views."""
    if markdown:
        head = ["what", *HEAD]
        table = [[line.label, *_cells(row)] for line in lines for row in line.rows]
        for cells in (head, ["---", *["---:"] * len(HEAD)], *table):
            print("| " + " | ".join(cells) + " |")
        print("".join(f"\n- {note}" for note in _notes(lines)))
        return
    blocks = [(line.label, [_cells(row) for row in line.rows]) for line in lines]
    every = [HEAD, *(cells for _, block in blocks for cells in block)]
    widths = [max(len(cells[n]) for cells in every) for n in range(len(HEAD))]
    print(title)
    print(_aligned(HEAD, widths))
    for label, block in blocks:
        print(label)
        for cells in block:
            print(_aligned(cells, widths))
    for note in _notes(lines):
        print(f"- {note}")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _notes(lines: Sequence[Series]) -> list[str]:
    """What must be said of single rows, then where other people's figures come from."""
    notes: list[str] = []
    sources: dict[str, dict[str, None]] = {}
    for line in lines:
        for row in line.rows:
            told = row.problem if row.source == OURS else row.facts.get("note")
            if told:
                notes.append(f"{line.label}, {_views(row)}: {told}")
            if "cite" in row.facts:
                sources.setdefault(str(row.facts["cite"]), {})[row.source] = None
    return [*notes, *(f"{'; '.join(names)}: {cite}" for cite, names in sources.items())]


def _cells(row: Row) -> list[str]:
    """A row but for its label; – where there is no figure."""
    facts = row.facts
    stages: dict[str, Any] = facts.get("stages") or {}
    kind = (row.problem or "").partition(":")[0]
    seconds = [kind or _number(row.seconds)]
    seconds += [_number(stages.get(name)) for name in STAGES]
    memory = "–" if row.peak_bytes is None else show_bytes(row.peak_bytes)
    flops, share = facts.get("flops"), facts.get("matmul_share")
    counted = "–" if flops is None else f"{flops / 1e12:.3g}"
    return [
        str(row.views),
        *seconds,
        memory,
        counted,
        "–" if share is None else f"{100 * share:.0f} %",
    ]


def _number(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3g}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _say_nothing(text: str) -> None:
    """For all processes but the first."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
