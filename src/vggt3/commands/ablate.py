"""``vggt3 ablate``: many adapters on one backbone, trained and examined alike, in one table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from vggt3 import checks
from vggt3.evaluation.picture_options import PictureOptions
from vggt3.inference.options import RunOptions
from vggt3.training.ablation.options import Leg


def ablate(
    experiment: Path,
    *,
    output: Annotated[Path | None, "-o"] = None,
    dry_run: bool = False,
    report: bool = False,
    merge: str | None = None,
    against: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    leg: Leg = Leg(),
    pictures: PictureOptions = PictureOptions(),
) -> int:
    """Train and score the rows of an ablation; go on where an earlier run stopped.

    Every row is an adapter that is trained on the frozen backbone on the same scenes, sits the
    same part of rooms-v1, and is timed. The table (means with 95 % intervals, paired differences
    to one row, parameters, ms a view, the paper's figures) is printed and lies in the folder, with
    a plot. Any number of processes may work in one folder at once.

    Args:
        experiment: A YAML file, such as experiments/ablation.yaml.
        output: Folder of the results (default: ablations/NAME, after the file).
        dry_run: Print the rows, what each costs and what is there; compute nothing.
        report: Print the table of what is there, of whatever machine; compute and write nothing.
        merge: Folders of the same ablation, separated by commas, whose results are taken over;
            nothing is computed.
        against: Name of the row that the others are compared with (default: the experiment's).
        device: cpu, cuda, cuda:1, mps, …; auto takes an accelerator if there is one.
        precision: Of the exam: fp32, or bf16 (parameters and products); auto is bf16 on
            CUDA, else fp32.
    """
    from vggt3.training.ablation import report as reporting

    _check({"--dry-run": dry_run, "--report": report, "--merge": merge is not None})
    work = _open(
        experiment, output, against, RunOptions(device=device, precision=precision), pictures, leg
    )
    if dry_run:
        _foretell(work)
        return 0
    if report:
        work.match()
        print(reporting.text(work)[0])
        return 0
    others = () if merge is None else [Path(other.strip()) for other in merge.split(",")]
    for other in others:
        _say(f"{work.folder.merge(other)} files taken from {other}")
    finished = bool(others) or _do(work)
    print(reporting.write(work))
    if not finished:
        _say("the time is up; the same command goes on")
    return 1 if work.failed else 0


def _check(given: Mapping[str, bool]) -> None:
    asked = [name for name, there in given.items() if there]
    told = ", ".join(given)
    checks.require(len(asked) <= 1, told, "come one at a time", " and ".join(asked))


def _open(
    experiment: Path,
    output: Path | None,
    against: str | None,
    run: RunOptions,
    pictures: PictureOptions,
    leg: Leg,
) -> Any:
    from vggt3.training.ablation import settings
    from vggt3.training.ablation.folder import Folder
    from vggt3.training.ablation.work import Work

    ablation = settings.read(experiment)
    ablation = ablation if against is None else replace(ablation, against=against)
    folder = Folder(output or Path("ablations") / experiment.stem)
    origin = {"command": shlex.join(["vggt3", *sys.argv[1:]])}
    return Work(ablation, folder, run, pictures, leg, say=_say, origin=origin)


def _foretell(work: Any) -> None:
    from vggt3.training.ablation import costs

    found = costs.costs(work)
    print(costs.markdown(found, len(work.tasks)))
    print("\n".join(["", *costs.summary(work, found)]))


def _do(work: Any) -> bool:
    try:
        done: bool = work.do()
    except KeyboardInterrupt:
        _say(f"interrupted; what was found is kept in {work.folder.path}")
        raise SystemExit(130) from None
    return done


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
