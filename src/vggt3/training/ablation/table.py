"""The table of an ablation: every row beside the one that all are compared with, and the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from vggt3.evaluation.intervals import Interval, interval, paired
from vggt3.evaluation.record import Record
from vggt3.training.ablation.settings import SCORES, RowSettings
from vggt3.training.ablation.work import Unit, Work

FEWEST = 10
"""Scenes below which resampling them says nothing about chance."""
HEADS = {"auc@30": "AUC@30 %", "cd": "CD m", "nc": "NC", "absrel": "AbsRel"}
DIGITS = {"auc@30": 1, "cd": 3, "nc": 3, "absrel": 3}
RISING = {"auc@30": True, "cd": False, "nc": True, "absrel": False}
"""Whether more is better."""


@dataclass(frozen=True)
class Line:
    """One row's scores on one set."""

    row: RowSettings
    set: str
    views: int
    scenes: int
    """Scored so far."""
    scores: dict[str, Interval]
    differences: dict[str, Interval]
    """To the row that all are compared with, paired by scene; none for that row itself."""
    parameters: int | None = None
    """That learned."""
    ms_a_view: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the training."""

    def decided(self, score: str) -> bool:
        """Whether a difference is more than chance."""
        found = self.differences.get(score)
        return found is not None and found.count >= FEWEST and found.excludes_zero


def lines(work: Work) -> list[Line]:
    """What there is of every row, in the ablation's order, set by set."""
    units = {work.keys.row(row): unit for unit in work.units for _, row in unit.rows}
    reference = next(r for r in work.ablation.rows if r.name == work.ablation.against)
    against = _state(work, reference, units)
    found = []
    for row in work.ablation.rows:
        state = _state(work, row, units)
        for name in work.ablation.exam.scenes:
            found.append(_line(work, row, name, state, None if row == reference else against))
    return found


@dataclass(frozen=True)
class _State:
    record: Record
    figures: dict[str, Any]
    facts: dict[str, Any]


def _state(work: Work, row: RowSettings, units: dict[str, Unit]) -> _State:
    key = work.keys.row(row)
    fitted = next(iter(work.fitted(units[key])), None)
    if fitted is None:
        return _State(Record({}), {}, {})
    record = work.folder.record(key, fitted.tensors, work.tasks)
    return _State(record, work.folder.figures(key, fitted.tensors) or {}, fitted.facts)


def _line(work: Work, row: RowSettings, name: str, state: _State, against: _State | None) -> Line:
    rows = state.record.of(name)
    scores = {s: interval([r.scores.get(s, math.nan) for r in rows.values()]) for s in SCORES}
    differences = {}
    if against is not None:
        theirs = against.record.of(name)
        both = [scene for scene in rows if scene in theirs]
        for score in SCORES:
            pairs = [[x[n].scores.get(score, math.nan) for n in both] for x in (rows, theirs)]
            differences[score] = paired(*pairs)
    views = work.exam.choose(name).config.views
    ms = state.figures.get("ms_a_view", {}).get(str(views))
    learned = state.figures.get("parameters")
    return Line(row, name, views, len(rows), scores, differences, learned, ms, state.facts)


def markdown(found: Sequence[Line], against: str) -> str:
    """The table, its cells padded so that it can be read as it is."""
    shown = [s for s in SCORES if any(line.scores[s].count for line in found)] or ["auc@30"]
    head = ["row", "views", "scenes"]
    for score in shown:
        head += [HEADS[score], f"− {against}"]
    head += ["learned", "ms a view", *(f"paper {HEADS[s]}" for s in ("auc@30", "cd", "nc"))]
    body = []
    for n, line in enumerate(found):
        first = n == 0 or found[n - 1].row is not line.row
        cells = [line.row.name if first else "", str(line.views), str(line.scenes)]
        for score in shown:
            cells += [_cell(score, line.scores[score]), _difference(line, score)]
        cells += [_count(line.parameters) if first else "", _number(line.ms_a_view, 2)]
        for score in ("auc@30", "cd", "nc"):
            cells.append(_number(line.row.paper.get(score), 3 if score != "auc@30" else 2, first))
        body.append(cells)
    widths = [max(len(row[n]) for row in (head, *body)) for n in range(len(head))]
    rule = ["-" * width for width in widths]
    rule[2:] = ["-" * (width - 1) + ":" for width in widths[2:]]
    rows = [_padded(head, widths), "| " + " | ".join(rule) + " |"]
    return "\n".join([*rows, *(_padded(cells, widths) for cells in body)])


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [
        cell.ljust(width) if n == 0 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(texts) + " |"


def _number(value: float | None, digits: int, shown: bool = True) -> str:
    if value is None or not shown:
        return ""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _cell(score: str, value: Interval) -> str:
    if not value.count:
        return "–"
    low, high = (_number(x, DIGITS[score]) for x in (value.low, value.high))
    return f"{_number(value.mean, DIGITS[score])} [{low}, {high}]"


def _difference(line: Line, score: str) -> str:
    found = line.differences.get(score)
    if found is None or not found.count:
        return ""
    digits = DIGITS[score]
    text = f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    return text + (" *" if line.decided(score) else "")


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def notes(found: Sequence[Line], wanted: dict[str, int]) -> list[str]:
    """What must be said of single rows: trainings that broke off, scenes that are missing."""
    told = []
    for line in found:
        if line.scenes < wanted[line.set]:
            told.append(f"{line.row.name}, {line.set}: {line.scenes} of {wanted[line.set]} scenes")
        if line.facts.get("problem") and line.set == next(iter(wanted)):
            told.append(f"{line.row.name}: {line.facts['problem']}")
    return told


def order(found: Sequence[Line]) -> list[str]:
    """The rows that the paper has too, in its order and in ours, set by set."""
    told = []
    for name in dict.fromkeys(line.set for line in found):
        mine = [line for line in found if line.set == name and line.row.paper]
        for score in ("auc@30", "cd", "nc"):
            both = [x for x in mine if score in x.row.paper and x.scores[score].count]
            if len(both) > 1:
                told.append(_order(both, name, score))
    return told


def _order(both: Sequence[Line], name: str, score: str) -> str:
    def best_first(value: Any) -> list[str]:
        ranked = sorted(both, key=value, reverse=RISING[score])
        return [line.row.name for line in ranked]

    theirs = best_first(lambda line: line.row.paper[score])
    ours = best_first(lambda line: line.scores[score].mean)
    swapped = [f"{a} and {b}" for a, b in combinations(theirs, 2) if ours.index(a) > ours.index(b)]
    verdict = (
        "the paper's order" if not swapped else f"not in the paper's order: {'; '.join(swapped)}"
    )
    return f"{name}, {HEADS[score]}: {' > '.join(ours)} ({verdict})"
