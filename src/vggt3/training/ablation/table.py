"""The table of an ablation: every row beside the one that all are compared with, and the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from vggt3.evaluation.intervals import Interval, interval, paired
from vggt3.evaluation.scoring import Scores
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
    by_scene: dict[int, Scores]
    """Of the scenes that are scored so far."""
    differences: dict[str, Interval] = field(default_factory=dict)
    """To the row that all are compared with, paired by scene; none for that row itself."""
    parameters: int | None = None
    """That learned."""
    ms_a_view: float | None = None
    timed_on: str | None = None
    """The device that the time is of."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the training."""

    @property
    def scores(self) -> dict[str, Interval]:
        """Means over the scenes, and their intervals."""
        return {s: interval([x.get(s, math.nan) for x in self.by_scene.values()]) for s in SCORES}

    def minus(self, other: Line, score: str) -> Interval:
        """The difference of two rows over the scenes that both have."""
        both = [scene for scene in self.by_scene if scene in other.by_scene]
        ours, theirs = ([x.by_scene[n].get(score, math.nan) for n in both] for x in (self, other))
        return paired(ours, theirs)


def decided(difference: Interval) -> bool:
    """Whether a difference is more than chance."""
    return difference.count >= FEWEST and difference.excludes_zero


def lines(work: Work) -> list[Line]:
    """What there is of every row, in the ablation's order, set by set."""
    units = {key: unit for unit in work.units for key, _ in unit.rows}
    plain = {}
    for row in work.ablation.rows:
        for name in work.ablation.exam.scenes:
            plain[row.name, name] = _line(work, row, name, units[work.keys.row(row)])
    found = []
    for (row_name, name), line in plain.items():
        if row_name != work.ablation.against:
            theirs = plain[work.ablation.against, name]
            differences = {score: line.minus(theirs, score) for score in SCORES}
            line = replace(line, differences=differences)
        found.append(line)
    return found


def _line(work: Work, row: RowSettings, name: str, unit: Unit) -> Line:
    key, views = work.keys.row(row), work.exam.choose(name).config.views
    fitted = next(iter(work.fitted(unit)), None)
    if fitted is None:
        return Line(row, name, views, {})
    scored = work.folder.scores(key, fitted.tensors)
    by_scene = {
        int(n): scored[s, n].scores for s, n in work.tasks if s == name and (s, n) in scored
    }
    figures = work.folder.figures(key, fitted.tensors) or {}
    times = work.folder.times(work.keys.time(row)) or {}
    return Line(
        row,
        name,
        views,
        by_scene,
        parameters=figures.get("parameters"),
        ms_a_view=times.get("ms_a_view", {}).get(str(views)),
        timed_on=times.get("device"),
        facts=fitted.facts,
    )


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
        cells = [line.row.name if first else "", str(line.views), str(len(line.by_scene))]
        scores = line.scores
        for score in shown:
            cells += [_cell(score, scores[score]), _difference(score, line.differences.get(score))]
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
    return value.told(lambda x: _number(x, DIGITS[score]))


def _difference(score: str, found: Interval | None) -> str:
    if found is None or not found.count:
        return ""
    digits = DIGITS[score]
    return found.told(lambda x: f"{x:+.{digits}f}") + (" *" if decided(found) else "")


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def notes(found: Sequence[Line], wanted: dict[str, int]) -> list[str]:
    """What must be said of single rows: trainings that broke off, scenes that are missing, times
    of different machines."""
    told = []
    devices: dict[str, dict[str, None]] = {}
    for line in found:
        if line.timed_on is not None and line.ms_a_view is not None:
            devices.setdefault(line.timed_on, {})[line.row.name] = None
    if len(devices) > 1:
        told += [f"timed on {device}: {', '.join(rows)}" for device, rows in devices.items()]
    for line in found:
        there = len(line.by_scene)
        if there < wanted[line.set]:
            told.append(f"{line.row.name}, {line.set}: {there} of {wanted[line.set]} scenes")
        if line.facts.get("problem") and line.set == next(iter(wanted)):
            told.append(f"{line.row.name}: {line.facts['problem']}")
    return told


def order(found: Sequence[Line]) -> list[str]:
    """The rows that the paper has too, best first beside the paper's order, set by set; over the
    scenes that all of them have."""
    told = []
    for name in dict.fromkeys(line.set for line in found):
        mine = [line for line in found if line.set == name and line.row.paper]
        for score in ("auc@30", "cd", "nc"):
            both = [x for x in mine if score in x.row.paper and x.scores[score].count]
            if len(both) > 1:
                common = set.intersection(*(set(line.by_scene) for line in both))
                same = [replace(x, by_scene=_of(x.by_scene, common)) for x in both]
                told.append(_order(same, name, score))
    return told


def _of(by_scene: dict[int, Scores], scenes: set[int]) -> dict[int, Scores]:
    return {n: found for n, found in by_scene.items() if n in scenes}


def _order(both: Sequence[Line], name: str, score: str) -> str:
    sign = 1 if RISING[score] else -1
    means = {line.row.name: line.scores[score].mean for line in both}
    ours = sorted(both, key=lambda line: -sign * means[line.row.name])
    theirs = sorted(both, key=lambda line: -sign * line.row.paper[score])
    swapped = []
    for better, worse in combinations(theirs, 2):
        if ours.index(better) > ours.index(worse):
            found = better.minus(worse, score)
            how = "more than chance" if decided(found) else "within chance"
            how = how if found.count >= FEWEST else "too few scenes to say"
            swapped.append(f"{worse.row.name} before {better.row.name}, {how}")
    verdict = f"not the paper's: {'; '.join(swapped)}" if swapped else "as in the paper"
    listed = ", ".join(f"{x.row.name} {means[x.row.name]:.{DIGITS[score]}f}" for x in ours)
    return f"{name}, {HEADS[score]}, best first: {listed} ({verdict})"
