"""The file of a benchmark: JSON lines, a row a combination, ours and other people's alike."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vggt3 import checks
from vggt3.files import naming

FORMAT = "vggt3 benchmark 1"
OURS = "vggt3"
"""``source`` of a row that this package measured."""
SAME = (
    "model",
    "fingerprint",
    "attention",
    "options",
    "sweeps",
    "views",
    "size",
    "world",
    "precision",
    "device",
    "run",
)
"""What a row is of: two rows that agree in these are measurements of one thing. The commit is not
among them, so that a long series can be gone on with."""


@dataclass(frozen=True)
class Row:
    """One measurement, or the reason there is none."""

    source: str
    """``vggt3``, or whose figure it is."""
    views: int
    """V"""
    seconds: float | None = None
    """Images on the device → every output; the median of the repeats."""
    peak_bytes: int | None = None
    """Most memory in use: allocated on a GPU, resident in the process on a CPU."""
    problem: str | None = None
    """Why there is no figure: it does not fit, or a kernel is not equal to its reference."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """All else: what was measured, where, and how."""

    @property
    def key(self) -> str:
        """Equal for rows that measure one thing (:data:`SAME`)."""
        data = self.to_data()
        return json.dumps([self.source, *(data.get(name) for name in SAME)], sort_keys=True)

    def to_data(self) -> dict[str, Any]:
        """Plain data for a line of a file."""
        known = {"seconds": self.seconds, "peak_bytes": self.peak_bytes, "problem": self.problem}
        told = {name: value for name, value in known.items() if value is not None}
        return {
            "format": FORMAT,
            "source": self.source,
            "views": self.views,
            **told,
            **self.facts,
        }


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in order.

    Raises:
        DataError: no such file, or a line that is no row, or cut short; says which.
    """
    name = f"'{path}'"
    try:
        whole, ended, rest = path.read_bytes().rpartition(b"\n")
        last = rest.decode("utf-8", "replace")  # a line that is cut short may end within a letter
        lines = (whole + ended).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        checks.fail(name, "be JSON lines of a benchmark", reason, error=checks.DataError)
    if _is_torn(last):
        told = (
            "one cut short, as a run that was killed leaves it: delete this last line, and its row"
        )
        told += f" is measured again ({_shortened(last)})"
        place = f"{name} line {len(lines) + 1}"
        checks.fail(place, "be whole", told, error=checks.DataError)
    lines += [last] if last else []
    return [_row(f"{name} line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]


def _is_torn(last: str) -> bool:
    """Whether what follows a file's last line end is the beginning of a row, and no whole one."""
    begins = json.dumps({"format": FORMAT})[:-1]
    if not last or not (last.startswith(begins) or begins.startswith(last)):
        return False
    try:
        json.loads(last)
    except ValueError:
        return True
    return False


def _shortened(line: str) -> str:
    return line if len(line) <= 60 else line[:57] + "…"


def _row(name: str, line: str) -> Row:
    try:
        data = json.loads(line)
    except ValueError:
        data = None
    shown = _shortened(line)
    ours = isinstance(data, dict) and data.pop("format", None) == FORMAT
    wanted = f'be a row with "format": "{FORMAT}"'
    checks.require(ours, name, wanted, shown, error=checks.DataError)
    source, views = data.pop("source", None), data.pop("views", None)
    named = isinstance(source, str) and bool(source)
    checks.require(named, f"{name}: source", "be a name", source, error=checks.DataError)
    whole = type(views) is int and views >= 1
    checks.require(
        whole, f"{name}: views", "be a whole number from 1", views, error=checks.DataError
    )
    figures: dict[str, Any] = {}
    for key in ("seconds", "peak_bytes"):
        value = data.pop(key, None)
        number = type(value) in (int, float) and math.isfinite(value) and value > 0
        checks.require(
            value is None or number, f"{name}: {key}", "be above 0", value, error=checks.DataError
        )
        figures[key] = value
    problem = data.pop("problem", None)
    told = problem is not None or any(figures.values())
    wanted = "have seconds, peak_bytes or a problem"
    checks.require(told, name, wanted, shown, error=checks.DataError)
    return Row(source, views, **figures, problem=problem, facts=data)


def append(path: Path, row: Row) -> None:
    """Add a line to the file, whole or not at all; it has reached the disk when this returns. A
    last line without its end, as an editor leaves one, gets it.

    Raises:
        OSError: no room for it.
    """
    line = (json.dumps(row.to_data(), ensure_ascii=False) + "\n").encode()
    with naming(path):
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            before = os.fstat(file).st_size
            if before and os.pread(file, 1, before - 1) != b"\n":
                line = b"\n" + line
            if os.write(file, line) != len(line):
                os.ftruncate(file, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        finally:
            os.close(file)


def latest(rows: Iterable[Row]) -> dict[str, Row]:
    """By key, the last row of each thing measured; a figure is never hidden by a problem."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.problem is None or row.key not in found or found[row.key].problem is not None:
            found[row.key] = row
    return found


@dataclass(frozen=True)
class Series:
    """Rows that differ in the number of views alone: a line of the plot."""

    label: str
    ours: bool
    rows: tuple[Row, ...]
    """By views, smallest first."""


def series(rows: Sequence[Row]) -> list[Series]:
    """Rows as lines, ours first; a label says what sets a line apart from the others."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        apart = [row.to_data().get(name) for name in SAME if name != "views"]
        groups.setdefault(json.dumps([row.source, *apart], sort_keys=True), []).append(row)
    found = [tuple(sorted(group, key=lambda row: row.views)) for group in groups.values()]
    ours = [group for group in found if group[0].source == OURS]
    theirs = [group for group in found if group[0].source != OURS]
    told = [_settings(group[0]) for group in ours]
    names = dict.fromkeys(name for facts in told for name in facts)
    varied = [name for name in names if len({facts.get(name) for facts in told}) > 1]
    return [
        *(Series(_own_label(group[0], varied), True, group) for group in ours),
        *(Series(_their_label(group[0]), False, group) for group in theirs),
    ]


def _own_label(row: Row, varied: Sequence[str]) -> str:
    facts = row.facts
    parts = [str(facts.get("attention"))]
    parts += [f"{key} {value}" for key, value in sorted(dict(facts.get("options") or {}).items())]
    sweeps = facts.get("sweeps")
    if sweeps is not None:
        parts.append(f"{sweeps} sweep{'s' if sweeps != 1 else ''}")
    settings = _settings(row)
    return ", ".join([*parts, *(settings[name] for name in varied if name in settings)])


def _settings(row: Row) -> dict[str, str]:
    """In words, what a label says only where it differs from line to line."""
    data = row.to_data()
    plain = ("model", "precision", "device")
    found: dict[str, str] = {name: str(data[name]) for name in plain if name in data}
    if "size" in data:
        found["size"] = "×".join(map(str, data["size"]))
    for name in ("fingerprint", "world"):
        if data.get(name) is not None:
            found[name] = f"{name} {str(data[name])[:12]}"
    run = dict(data.get("run") or {})
    return found | {f"run.{key}": f"{key} {value}" for key, value in run.items()}


def _their_label(row: Row) -> str:
    device, world = row.facts.get("device"), row.facts.get("world", 1)
    where = f"{world} × {device}" if device and world != 1 else device
    return f"{row.source} ({where})" if where else row.source
