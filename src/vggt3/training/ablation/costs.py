"""What the rows of an ablation will cost, counted and not tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from vggt3.attention.registry import LayerSpec
from vggt3.evaluation.benchmark.operations import Counter
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.model.weights import own_randomness
from vggt3.training.ablation.settings import RowSettings
from vggt3.training.ablation.work import Unit, Work


@dataclass(frozen=True)
class Cost:
    """Of one row."""

    row: RowSettings
    training: str
    """In words: done, shared with an earlier row, or ahead."""
    scored: int
    """Scenes that have their scores."""
    parameters: int
    """That learn."""
    flops: dict[int, int | None]
    """Views → operations of one scene (2 for a multiply-add); None where not countable."""


def costs(work: Work) -> list[Cost]:
    """What each row costs and what of it is there, in the ablation's order."""
    model = open_model(ModelChoice(work.ablation.weights, attention="softmax")).model
    counter = Counter(model)
    units = {key: unit for unit in work.units for key, _ in unit.rows}
    found: list[Cost] = []
    seen: set[str] = set()
    for row in work.ablation.rows:
        unit = units[work.keys.row(row)]
        training = "shared" if unit.fit.key in seen else _training(work, unit)
        seen.add(unit.fit.key)
        specs = work.keys.specs(row)
        flops = {views: counter.count(specs, views, size) for views, size in work.sizes.items()}
        learn = sum(_parameters(work, spec) for spec in specs) if row.train else 0
        found.append(Cost(row, training, _scored(work, row, unit), learn, flops))
    return found


def _training(work: Work, unit: Unit) -> str:
    if not unit.fit.trained:
        return "none: as it ships"
    if work.fitted(unit):
        return "done"
    settings = work.ablation.training
    ends = [f"{settings.steps} steps"] * (settings.steps > 0)
    return " or ".join([*ends, *[f"{settings.seconds:g} s"] * (settings.seconds > 0)])


def _scored(work: Work, row: RowSettings, unit: Unit) -> int:
    fitted = next(iter(work.fitted(unit)), None)
    if fitted is None:
        return 0
    scored = work.folder.scores(work.keys.row(row), fitted.tensors)
    return sum(task in scored for task in work.tasks)


def _parameters(work: Work, spec: LayerSpec) -> int:
    with own_randomness():
        layer = spec.build(work.keys.config.width, work.keys.config.heads, 0)
    return sum(p.numel() for p in layer.parameters())


def markdown(found: Sequence[Cost], scenes: int) -> str:
    """The rows as a table."""
    views = list(found[0].flops)
    head = [
        "row",
        "backend",
        "training",
        "scenes",
        "learn",
        *(f"GFLOP a view of {v}" for v in views),
    ]
    body = [head, ["---", "---", "---", *["---:"] * (2 + len(views))]]
    for cost in found:
        counted = [f / v / 1e9 if f is not None else None for v, f in cost.flops.items()]
        numbers = ["–" if x is None else f"{x:.1f}" for x in counted]
        done = f"{cost.scored} of {scenes}"
        learn = f"{cost.parameters:,}"
        body.append([cost.row.name, told(cost.row), cost.training, done, learn, *numbers])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body)


def told(row: RowSettings) -> str:
    """A row's backend and options in words."""
    parts = [row.attention, *(f"{k} {v}" for k, v in row.options.items())]
    parts += [f"{k} {v} in the exam" for k, v in row.inference.items()]
    return ", ".join([*parts, *["from scratch"] * (row.start == "scratch")])


def summary(work: Work, found: Sequence[Cost]) -> list[str]:
    """What is left of the whole, in lines."""
    left = [unit for unit in work.units if not work.done(unit)]
    train = [unit for unit in left if unit.fit.trained and not work.fitted(unit)]
    views, flops = 0, 0
    for cost in {work.keys.row(c.row): c for c in found}.values():
        if cost.scored < len(work.tasks):
            for name, count in work.ablation.exam.scenes.items():
                number = work.exam.choose(name).config.views
                views += count * number
                flops += count * (cost.flops[number] or 0)
    lines = [
        f"{len(found)} rows, {len(work.units)} trainings; to do: {len(train)} trainings, "
        f"{views:,} views to score ({flops / 1e12:,.0f} TFLOP, pictures and scoring left out)"
    ]
    trained = [f.facts["seconds"] for u in work.units for f in work.fitted(u) if f.facts]
    figures = [work.folder.figures(k, f.tensors) for u in work.units for f in work.fitted(u)
               for k, _ in u.rows]  # fmt: skip
    scored = [figure["seconds"] for figure in figures if figure]
    if trained:
        lines.append(f"a training took {mean(trained):.0f} s on average so far")
    if scored:
        lines.append(f"an exam took {mean(scored):.0f} s on average so far")
    return lines
