"""The plot of an ablation: each row's difference to one of them, with its interval, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vggt3.evaluation.benchmark.plot import COLOURS, GRID
from vggt3.evaluation.intervals import Interval
from vggt3.files import replacing
from vggt3.io.export.colours import FAINT_TEXT, PAGE, PANEL, TEXT
from vggt3.training.ablation.settings import SCORES
from vggt3.training.ablation.table import HEADS, RISING, Line, decided

_EDGE, _NAMES, _PANEL, _GAP = 28, 250, 330, 18
_TOP, _ROW, _STEP, _FOOT = 128, 14, 13, 54
_FINE = 3
"""Marks are drawn this many times larger, then reduced: Pillow draws them with steps."""
Colour = tuple[int, int, int]
_SPELLED = str.maketrans({"−": "-", "×": "x", "–": "-"})
"""What Pillow's own font lacks."""


def draw(path: Path, found: Sequence[Line], against: str, title: str) -> None:
    """Write the plot, whole or not at all. A mark is filled where the interval excludes 0."""
    rows = list(dict.fromkeys(line.row.name for line in found if line.row.name != against))
    sets = list(dict.fromkeys((line.set, line.views) for line in found))
    lines = {(line.row.name, line.set): line for line in found}
    height = _ROW + _STEP * len(sets)
    shown = [s for s in SCORES if any(_drawn(line, s) for line in found)]
    size = (
        2 * _EDGE + _NAMES + max(1, len(shown)) * (_PANEL + _GAP),
        _TOP + height * max(1, len(rows)) + _FOOT,
    )
    fine = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), PAGE)
    brush, labels = ImageDraw.Draw(fine), []
    for n, score in enumerate(shown):
        left = _EDGE + _NAMES + n * (_PANEL + _GAP)
        panel = _Panel(score, left, size[1] - _FOOT, [x for x in found if _drawn(x, score)])
        panel.ground(brush)
        for number, name in enumerate(rows):
            for place, (set_name, _) in enumerate(sets):
                line = lines[name, set_name]
                if _drawn(line, score):
                    y = _TOP + number * height + _ROW // 2 + _STEP * place + _STEP // 2
                    panel.mark(brush, y, line.differences[score], COLOURS[place % len(COLOURS)])
        labels.append(panel)
    page = fine.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(page)
    _text(pen, (_EDGE, _EDGE), title, 20)
    for place, (_, views) in enumerate(sets):
        _text(pen, (_EDGE + 110 * place, 64), f"{views} views", 16, COLOURS[place % len(COLOURS)])
    for number, name in enumerate(rows):
        y = _TOP + number * height + height // 2
        _text(pen, (_EDGE + _NAMES - 12, y), name, 15, TEXT, "rm")
    for panel in labels:
        panel.texts(pen, against)
    with replacing(path) as beside:
        page.save(beside, format="PNG", optimize=True)


def _drawn(line: Line, score: str) -> bool:
    found = line.differences.get(score)
    return found is not None and found.count > 0


class _Panel:
    """One score's differences on a linear axis that holds 0."""

    def __init__(self, score: str, left: int, bottom: int, found: Sequence[Line]) -> None:
        self.score, self.left, self.bottom = score, left, bottom
        ends = [x for line in found for x in _ends(line.differences[score])]
        low, high = min(0.0, *ends), max(0.0, *ends)
        margin = 0.06 * (high - low) or 1.0
        self.low, self.high = low - margin, high + margin

    def place(self, value: float) -> float:
        """The pixel of a value."""
        inner = _PANEL - 24
        return self.left + 12 + inner * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values to mark."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(x * power for x in (1, 2, 5, 10) if x * power >= rough)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step) + 1)]

    def ground(self, brush: ImageDraw.ImageDraw) -> None:
        """The panel and its grid."""
        box = (self.left, _TOP - 6, self.left + _PANEL, self.bottom + 6)
        brush.rounded_rectangle([_FINE * x for x in box], 8 * _FINE, PANEL)
        for tick in self.ticks():
            x, colour = self.place(tick), FAINT_TEXT if tick == 0 else GRID
            ends = [(x * _FINE, (_TOP - 6) * _FINE), (x * _FINE, (self.bottom + 6) * _FINE)]
            brush.line(ends, colour, _FINE)

    def mark(self, brush: ImageDraw.ImageDraw, y: float, found: Interval, colour: Colour) -> None:
        """An interval and its mean."""
        low, high = (self.place(end) * _FINE for end in _ends(found))
        brush.line([(low, y * _FINE), (high, y * _FINE)], colour, 2 * _FINE)
        x, size = self.place(found.mean) * _FINE, 4.5 * _FINE
        box = (x - size, y * _FINE - size, x + size, y * _FINE + size)
        brush.ellipse(box, colour if decided(found) else PANEL, colour, 2 * _FINE)

    def texts(self, pen: ImageDraw.ImageDraw, against: str) -> None:
        """What is drawn, and the ticks."""
        better = "right" if RISING[self.score] else "left"
        head = f"{HEADS[self.score]} − {against}  ({better} is better)"
        _text(pen, (self.left, _TOP - 12), head, 15, TEXT, "ls")
        for tick in self.ticks():
            _text(pen, (self.place(tick), self.bottom + 14), f"{tick:+.3g}", 14, FAINT_TEXT, "ma")


def _ends(found: Interval) -> tuple[float, float]:
    """Of the line that is drawn: a single scene has no interval, only its dot."""
    return (found.low, found.high) if found.count > 1 else (found.mean, found.mean)


def _text(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour = TEXT,
    anchor: str = "la",
) -> None:
    pen.text(at, text.translate(_SPELLED), colour, ImageFont.load_default(size), anchor=anchor)
