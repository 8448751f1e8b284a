"""The folder of an ablation: fits, scores and figures, from any number of processes and machines.

Nothing in it is ever written by two: a fit's files are named by the tensors that came out, a file
of scores by the process that writes it, and the rest is the same whoever writes it. So processes
may share a folder, and folders are merged by putting their files together.

    ablation.json                  what the scores depend on beside the rows
    fits/NAME-FIT-TENSORS.json     a training; .safetensors until its rows are complete
    scores/NAME-ROW-TENSORS-*.json every score of every scene (``vggt3 evaluate compare`` reads it)
    rows/NAME-ROW-TENSORS.json     parameters, and how long the exam took
    times/NAME-TIME.json           time a view
    table.md, plot.png             made of these
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vggt3 import checks
from vggt3.evaluation.record import Record, Task, read_record
from vggt3.files import replacing

FORMAT = "vggt3 ablation 1"
SETTINGS = "ablation.json"
FITS, SCORES, ROWS, TIMES = PARTS = "fits", "scores", "rows", "times"
MOST_BYTES = 6 << 20
"""Of an adapter that is kept beyond its rows' completion."""


@dataclass(frozen=True)
class Fitted:
    """A training that is done."""

    tensors: str
    """Stands for the tensors that came out."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Steps, seconds, parameters, device, …"""
    adapter: Path | None = None
    """Its weights, as long as they are there; None too for what ships."""


SHIPPED = Fitted("shipped")


def slug(name: str) -> str:
    """A row's name as a part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "row"


class Folder:
    """One folder, as this process sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = os.urandom(5).hex()
        """Of this process's own files."""

    @property
    def draft(self) -> Path:
        """Where this process puts an adapter before it has a name."""
        return self.path / FITS / f".{self.token}.safetensors"

    def open(self, about: Mapping[str, Any]) -> None:
        """Make the folder, or hold it to what its scores depend on.

        Raises:
            UsageError: it is of another exam, backbone or kind of device; says which.
        """
        for name in PARTS:
            try:
                (self.path / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                checks.fail(f"OUT '{self.path}'", "be a folder that can be written", error.strerror)
        if not (self.path / SETTINGS).exists():
            self._found({"format": FORMAT, "about": dict(about)})
        self.hold({**dict.fromkeys(self.about()), **about})

    def hold(self, about: Mapping[str, Any]) -> None:
        """Hold the folder, of any machine, to what is named of what its scores depend on.

        Raises:
            DataError: it is no ablation's folder.
            UsageError: it is of something else; says of what.
        """
        stored = self.about()
        for key, value in sorted(about.items()):
            told = f"be of the same {key} ({_short(value)})"
            same = stored.get(key) == value
            checks.require(same, f"OUT '{self.path}'", told, _short(stored.get(key)))

    def about(self) -> dict[str, Any]:
        """What its scores depend on beside the rows.

        Raises:
            DataError: it is no ablation's folder.
        """
        content = _read(self.path / SETTINGS)
        wanted = f'be an ablation\'s folder, with "format": "{FORMAT}" in {SETTINGS}'
        ours = content.get("format") == FORMAT and isinstance(content.get("about"), dict)
        checks.require(ours, f"'{self.path}'", wanted, "another", error=checks.DataError)
        return dict(content["about"])

    def fits(self, key: str) -> list[Fitted]:
        """What trainings of that key are done."""
        found = []
        for path in sorted((self.path / FITS).glob(f"[!.]*-{key}-*.json")):
            adapter = path.with_suffix(".safetensors")
            tensors = path.stem.rpartition("-")[2]
            found.append(Fitted(tensors, _read(path), adapter if adapter.is_file() else None))
        return found

    def add_fit(self, name: str, key: str, weights: Path, facts: Mapping[str, Any]) -> Fitted:
        """Take a trained adapter's file in, under its own name."""
        tensors = str(facts["content"])[:10]
        path = self.path / FITS / f"{slug(name)}-{key}-{tensors}.json"
        adapter = path.with_suffix(".safetensors")
        weights.replace(adapter)
        _write(path, facts)
        return Fitted(tensors, dict(facts), adapter)

    def scores(self, key: str, tensors: str) -> dict[Task, Any]:
        """The scores of a row, from all that scored it with these tensors."""
        found: dict[Task, Any] = {}
        for path in sorted((self.path / SCORES).glob(f"[!.]*-{key}-{tensors}-*.json")):
            found |= read_record(path).rows
        return found

    def record(self, key: str, tensors: str, tasks: Sequence[Task]) -> Record:
        """The same of ``tasks`` alone, in their order."""
        rows = self.scores(key, tensors)
        about = self.about()
        return Record(about, rows={task: rows[task] for task in tasks if task in rows})

    def part(self, name: str, key: str, tensors: str) -> Path:
        """This process's own file of scores."""
        return self.path / SCORES / f"{slug(name)}-{key}-{tensors}-{self.token}.json"

    def figures(self, key: str, tensors: str) -> dict[str, Any] | None:
        """What else was measured of a row, if it was."""
        found = sorted((self.path / ROWS).glob(f"[!.]*-{key}-{tensors}.json"))
        return _read(found[0]) if found else None

    def add_figures(self, name: str, key: str, tensors: str, figures: Mapping[str, Any]) -> None:
        """Keep what else was measured of a row."""
        _write(self.path / ROWS / f"{slug(name)}-{key}-{tensors}.json", figures)

    def times(self, key: str) -> dict[str, Any] | None:
        """The time a view of what has that key, if it was taken."""
        found = sorted((self.path / TIMES).glob(f"[!.]*-{key}.json"))
        return _read(found[0]) if found else None

    def add_times(self, name: str, key: str, found: Mapping[str, Any]) -> None:
        """Keep a time."""
        _write(self.path / TIMES / f"{slug(name)}-{key}.json", found)

    def merge(self, other: Path) -> int:
        """Take in whatever another folder of the same ablation has; returns the files taken.

        Raises:
            DataError: it is no ablation's folder.
            UsageError: its scores depend on something else.
        """
        self.open(Folder(other).about())
        taken = 0
        for path in sorted(p for name in PARTS for p in (other / name).glob("*")):
            ours = self.path / path.parent.name / path.name
            newer = ours.exists() and path.parent.name == SCORES and _more(path, ours)
            if path.name.startswith(".") or (ours.exists() and not newer):
                continue
            with replacing(ours) as beside:
                shutil.copyfile(path, beside)
            taken += 1
        return taken

    def _found(self, content: Mapping[str, Any]) -> None:
        """Write the settings unless another process was first."""
        own = self.path / f".{SETTINGS}.{self.token}.own"
        _write(own, content)
        try:
            os.link(own, self.path / SETTINGS)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            own.replace(self.path / SETTINGS)
        finally:
            own.unlink(missing_ok=True)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as beside:
        text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
        beside.write_text(text, encoding="utf-8")


def _more(theirs: Path, ours: Path) -> bool:
    """Whether a process wrote more into one copy of its file than into another."""
    return len(read_record(theirs).rows) > len(read_record(ours).rows)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        checks.fail(f"'{path}'", "be a file of an ablation", reason, error=checks.DataError)
    told = type(content).__name__
    wanted = "hold a JSON object"
    checks.require(isinstance(content, dict), f"'{path}'", wanted, told, error=checks.DataError)
    return dict(content)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
