"""What the adapter's next leg convolves, by an ablation's own scores.

    python experiments/choose_convolved.py experiments/ablation.yaml FOLDER

Of the rows that convolve v and more, the one that is furthest above the row that they vary, by
AUC@30 of 8 and 24 views together, if its paired 95 % interval excludes 0; printed as an option.
Convolutions of q and k begin by changing nothing, so that an adapter may get them later.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vggt3.evaluation.intervals import interval
from vggt3.training.ablation import settings, table
from vggt3.training.ablation.folder import Folder
from vggt3.training.ablation.work import Work

BASE = "learned start: ttt_shortconv"
SETS = ("v8", "v24")


def main(experiment: str, folder: str) -> None:
    """Print the option, or nothing; what it is chosen from goes to the standard error."""
    ablation = settings.read(Path(experiment))
    lines = table.lines(Work(ablation, Folder(Path(folder))))
    scores = {(line.row.name, line.set): line.by_scene for line in lines}
    best, gain = None, 0.0
    for row in ablation.rows:
        convolved = row.options.get("convolved", "v")
        if convolved == "v" or "v" not in convolved:
            continue
        gains = [
            found["auc@30"] - scores[BASE, name][scene]["auc@30"]
            for name in SETS
            for scene, found in scores[row.name, name].items()
            if scene in scores[BASE, name]
        ]
        told = interval(gains)
        print(f"{row.name}: {told.mean:+.2f} [{told.low:+.2f}, {told.high:+.2f}]", file=sys.stderr)
        if table.decided(told) and told.mean > gain:
            best, gain = convolved, told.mean
    if best is not None:
        print(f"--attention.convolved {best}")


if __name__ == "__main__":
    main(*sys.argv[1:])
