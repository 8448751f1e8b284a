"""Scores as rows of text: what is shown of a record on a screen or in a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vggt3.evaluation.intervals import Interval
from vggt3.evaluation.record import Comparison, Record

FEWEST = 10
"""Scenes below which resampling them says nothing about chance."""
SCORES = {
    "auc@30": "AUC@30 %",
    "rra@5": "RRA@5 %",
    "rra@15": "RRA@15 %",
    "rra@30": "RRA@30 %",
    "rta@5": "RTA@5 %",
    "rta@15": "RTA@15 %",
    "rta@30": "RTA@30 %",
    "ate": "ATE rmse{unit}",
    "rpe translation": "RPE translation{unit}",
    "rpe rotation": "RPE rotation °",
    "absrel": "AbsRel",
    "delta": "δ < 1.25 %",
    "absrel shift": "AbsRel, scale + shift",
    "delta shift": "δ < 1.25 %, scale + shift",
    "cd": "CD{unit}",
    "accuracy": "accuracy{unit}",
    "accuracy median": "accuracy, median{unit}",
    "completeness": "completeness{unit}",
    "completeness median": "completeness, median{unit}",
    "nc": "NC",
    "rotation": "rotation error °",
    "translation": "translation error{unit}",
    "rotation median": "rotation error, median °",
    "translation median": "translation error, median{unit}",
    "under 10": "(10°, 10 cm) %",
    "under 20": "(20°, 20 cm) %",
    "under 30": "(30°, 30 cm) %",
    "map auc@30": "map views' AUC@30 %",
    "map rotation median": "map views' rotation error, median °",
    "map translation median": "map views' translation error, median{unit}",
    "rotation ratio": "queries' rotation error over the map's",
    "translation ratio": "queries' translation error over the map's",
    "map rotation": "map views' rotation error °",
    "map translation": "map views' translation error{unit}",
    "confidence": "confidence of queries",
    "views": "views",
    "queries": "queries",
}
"""Scores that are shown, in order; a file has them all. " head" behind one: the point head's."""
POSES, DEPTHS = ("auc@30", "rra@15", "rta@15", "ate"), ("absrel", "delta")
QUERIES = ("rotation", "translation", "under 10")
MAIN = (*POSES, *DEPTHS, "cd", "nc", *QUERIES, "cd head", "nc head")
"""Scores that are shown scene by scene."""
DECIMALS = {"auc@30": 1, "map auc@30": 1, "delta": 1, "still": 1, "views": 0, "queries": 0}
PERCENT = ("rra", "rta", "under")

Table = tuple[list[str], list[list[str]]]
"""A head, and rows as long."""


def label(score: str, unit: str = "m") -> str:
    """What a score is called, its unit with it; a score without a name is its own."""
    plain = score.removesuffix(" head")
    named = SCORES.get(plain, plain).format(unit=f" {unit}" if unit else "")
    return named if plain == score else f"{named}, point head"


def shown(record: Record, name: str) -> list[str]:
    """The scores of a set that are shown, in order."""
    found = list(record.values(name))
    return [key for base in SCORES for key in (base, f"{base} head") if key in found]


def number(score: str, value: float) -> str:
    """With as many decimals as mean something; a dash for nan."""
    if math.isnan(value):
        return "–"
    base = score.partition(" head")[0]
    decimals = DECIMALS.get(base, 1 if base.startswith(PERCENT) else 3)
    return f"{value:.{decimals}f}"


def cell(score: str, value: Interval) -> str:
    """A mean and its interval."""
    return value.told(lambda x: number(score, x))


def overall(record: Record, name: str) -> Table:
    """Score by score: mean with its interval, and median, over the scenes."""
    unit, found, medians = record.unit, record.intervals(name), record.medians(name)
    rows = [
        [label(key, unit), cell(key, found[key]), number(key, medians[key]), str(found[key].count)]
        for key in shown(record, name)
    ]
    guess = record.intervals(name, trivial=True)
    if "auc@30" in guess:
        trivial = guess["auc@30"]
        told = [cell("auc@30", trivial), "", str(trivial.count)]
        rows.insert(1, ["AUC@30 %, trivial guess", *told])
    return ["score", "mean [95 % interval]", "median", "scenes"], rows


def by_scene(
    record: Record,
    name: str,
    scores: Sequence[str] = MAIN,
    heads: Mapping[str, str] | None = None,
) -> Table:
    """Scene by scene, the scores that matter most; ``heads``: what to call them, to save room."""
    keys = [key for key in scores if key in record.values(name)]
    rows = [
        [str(scene), *(number(key, row.scores.get(key, math.nan)) for key in keys)]
        for scene, row in record.of(name).items()
    ]
    named = heads or {key: label(key, record.unit) for key in keys}
    return ["scene", *(named[key] for key in keys)], rows


def origin(record: Record) -> list[str]:
    """Lines that say what was run: command, commit, weights and hashes. Where the rows come from
    several runs, a line for each command, commit and so on, with the scenes that have it."""
    about = record.about
    lines = [
        *_from_runs(record, "command", ("command",)),
        *_from_runs(record, "commit", ("commit", "version")),
        *_from_runs(record, "torch", ("torch",)),
        ("protocol", about.get("exam")),
        *_from_runs(record, "weights", ("model",)),
        ("backbone SHA-256", about.get("backbone")),
        ("tensors SHA-256", about.get("tensors")),
        ("attention", "; ".join(about.get("attention", ()))),
        ("computed", f"{about.get('precision')} on {about.get('device')}"),
        ("long side", about.get("long_side")),
        ("data", about.get("data")),
    ]
    return [f"{name}: {value}" for name, value in lines if value is not None]


def _from_runs(record: Record, name: str, keys: Sequence[str]) -> list[tuple[str, str | None]]:
    """(name, value) of every value that the rows' origins have, the first of ``keys`` that is."""
    counts: dict[str | None, int] = {}
    for origin in record.origins:
        value = next((str(origin[key]) for key in keys if origin.get(key)), None)
        rows = sum(row.origin == origin for row in record.rows.values())
        counts[value] = counts.get(value, 0) + rows
    if len(counts) == 1:
        return [(name, next(iter(counts)))]
    return [
        (f"{name} of {count} scene{'s' if count != 1 else ''}", value or "unknown")
        for value, count in counts.items()
    ]


def compared(found: Sequence[Comparison], unit: str) -> Table:
    """Paired differences of two runs."""
    head = ["set", "scenes", "score", "ours", "theirs", "difference", "excludes 0"]
    rows = [
        [
            one.set,
            str(one.difference.count),
            label(one.score, unit),
            number(one.score, one.ours),
            number(one.score, one.theirs),
            cell(one.score, one.difference),
            _verdict(one.difference),
        ]
        for one in found
        if one.score.removesuffix(" head") in SCORES
    ]
    return head, rows


def across(record: Record, keys: Mapping[str, str]) -> Table:
    """Scores ``keys`` (name → label) down, the record's sets across, and counts of scenes; with
    medians where it is one set, for several of which there is no room (the file has them)."""
    names = record.sets
    found = {name: record.intervals(name) for name in names}
    trivial = {name: record.intervals(name, trivial=True)["auc@30"] for name in names}
    here = [key for key in keys if any(key in scores for scores in found.values())]
    rows = [[keys[key], *(cell(key, found[name][key]) for name in names)] for key in here]
    rows.insert(1, ["AUC@30 %, trivial guess", *(cell("auc@30", trivial[n]) for n in names)])
    rows.append(["scenes", *(str(len(record.of(name))) for name in names)])
    for text, key in (("still pairs", "still"), ("pairs", "pairs")):
        totals = [sum(row.scores[key] for row in record.of(n).values()) for n in names]
        rows.append([text, *(f"{total:.0f}" for total in totals)])
    if "cd" in here:
        lost = [sum(math.isnan(row.scores["cd"]) for row in record.of(n).values()) for n in names]
        if any(lost):
            rows.append(["scenes without a cloud", *map(str, lost)])
    if len(names) != 1:
        return ["mean [95 % interval]", *names], rows
    medians, key_of = record.medians(names[0]), {keys[key]: key for key in here}
    middle = [number(k, medians[k]) if (k := key_of.get(row[0])) else "" for row in rows]
    head = ["mean [95 % interval]", names[0], "median"]
    return head, [[*row, x] for row, x in zip(rows, middle, strict=True)]


def markdown(table: Table) -> str:
    """A table to paste."""
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _verdict(difference: Interval) -> str:
    if difference.count < FEWEST:
        return "too few"
    return "yes" if difference.excludes_zero else "no"
