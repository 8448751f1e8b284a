"""What an ablation says: ``table.md`` and ``plot.png`` in its folder."""

from __future__ import annotations

from collections.abc import Sequence

from vggt3.files import replacing
from vggt3.training.ablation import plot, table
from vggt3.training.ablation.table import Line
from vggt3.training.ablation.work import Work


def text(work: Work) -> tuple[str, list[Line]]:
    """The table with all that is said of it, and its lines."""
    every = table.lines(work)
    begun = {line.row.name for line in every if line.by_scene}
    found = [line for line in every if line.row.name in begun]
    said = told(work, found)
    ahead = dict.fromkeys(line.row.name for line in every if line.row.name not in begun)
    if ahead:
        said += f"\n- nothing yet of {', '.join(ahead)}"
    return said, found


def write(work: Work) -> str:
    """Write both, each whole or not at all; returns the text."""
    said, found = text(work)
    with replacing(work.folder.path / "table.md") as beside:
        beside.write_text(said + "\n", encoding="utf-8")
    title = f"difference to {work.ablation.against}, 95 % intervals paired by scene"
    plot.draw(work.folder.path / "plot.png", found, work.ablation.against, title)
    return said


def told(work: Work, found: Sequence[Line]) -> str:
    """The table, what it is of, and how to read it."""
    exam, about = work.ablation.exam, work.folder.about()
    parts = [_origin(work, found, about), "", table.markdown(found, work.ablation.against), ""]
    stars = f"Means over scenes with 95 % intervals; − {work.ablation.against}: paired by scene, "
    stars += f"* where the interval excludes 0 (of at least {table.FEWEST} scenes). "
    parts.append(stars + "Paper: VGG-T³ at 224 pixels, as transcribed.")
    for line in [*table.notes(found, exam.scenes), *table.order(found)]:
        parts.append(f"- {line}")
    return "\n".join(parts)


def _origin(work: Work, found: Sequence[Line], about: dict[str, object]) -> str:
    facts = [line.facts for line in found if line.facts]
    commits = dict.fromkeys(_short(str(f["commit"])) for f in facts if "commit" in f)
    devices = dict.fromkeys(str(f["device"]) for f in facts)
    steps = sorted({int(f["steps"]) for f in facts})
    seconds = sorted(float(f["seconds"]) for f in facts)
    pictures = "canonical pictures" if about["canonical"] else "pictures rendered on the GPU"
    told = f"{about['exam']!s:.20}…, {pictures}, clouds of {about['points']}, {about['precision']}"
    if facts:
        least, most = (f"{end:,}" for end in (steps[0], steps[-1]))
        told += f"; trained for {least if least == most else f'{least} to {most}'} steps"
        told += f" ({seconds[0]:.0f} to {seconds[-1]:.0f} s) on {', '.join(devices)}"
    return told + (f"; commit {', '.join(commits)}" if commits else "")


def _short(commit: str) -> str:
    name, _, changes = commit.partition(" ")
    return f"{name[:12]} {changes}".strip()
