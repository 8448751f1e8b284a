"""Time and memory against the number of views, both logarithmic, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vggt3.evaluation.benchmark.rows import Row, Series
from vggt3.files import replacing
from vggt3.io.export.colours import FAINT_TEXT, PAGE, PANEL, TEXT

Colour = tuple[int, int, int]
Style = tuple[Colour, int]
"""Colour, and which mark."""
Point = tuple[float, float]

# Told apart by people of any colour vision (after Okabe and Ito), lightened for a dark page.
COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),
    (240, 160, 40),
    (45, 190, 140),
    (230, 130, 180),
    (240, 228, 66),
    (235, 105, 60),
    (150, 140, 255),
    (190, 200, 210),
)
GRID = (46, 51, 62)
_WIDTH, _EDGE, _GAP = 1600, 28, 24
_HEIGHT = 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 22, 56, 52
_FINE = 3
"""Lines are drawn this many times larger, then reduced: Pillow draws them with steps."""
_MARK = 6
_DASH, _SPACE = 9, 7
_LINE = 30
_CORNERS = ((), (45, 135, 225, 315), (0, 90, 180, 270), (30, 150, 270))
"""Marks: a disc, a square, a diamond, a triangle; the angles of their corners in degrees."""
_SPELLED = str.maketrans({"×": "x", "³": "3"})
"""What Pillow's own font lacks."""


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis between two pixels."""

    low: float
    high: float
    first: float
    """Pixel of ``low``."""
    last: float
    """Pixel of ``high``."""

    def place(self, value: float) -> float:
        """The pixel of a value."""
        span = math.log(self.high / self.low)
        return self.first + (self.last - self.first) * math.log(value / self.low) / span

    def ticks(self) -> list[float]:
        """Values to mark: 1, 2, 5 in every decade where there is room, else powers of ten."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if math.log10(self.high / self.low) <= 3.2 else (1,)
        found = [step * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in found if self.low <= value <= self.high]
        return inside if len(inside) >= 2 else [self.low, self.high]


def draw(path: Path, lines: Sequence[Series], title: str) -> None:
    """Write the plot, whole or not at all; rows without a figure are left out of it.

    Args:
        path: the PNG.
        lines: ours first; ours are solid, other people's dashed.
        title: one line over the panels.
    """
    styled = [(line, _style(n)) for n, line in enumerate(lines)]
    top = _EDGE + 48
    size = (_WIDTH, top + _HEIGHT + 24 + _LINE * math.ceil(len(lines) / 2) + _EDGE)
    width = (_WIDTH - 2 * _EDGE - _GAP) // 2
    boxes = [(_EDGE + n * (width + _GAP), top, width, _HEIGHT) for n in range(2)]
    panels = [
        _Panel("seconds", boxes[0], lambda row: row.seconds, lines),
        _Panel("peak memory, GiB", boxes[1], _gibibytes, lines),
    ]
    fine = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), PAGE)
    canvas = ImageDraw.Draw(fine)
    for panel in panels:
        panel.draw_lines(canvas, styled)
    legend_y = top + _HEIGHT + 24 + _LINE // 2
    for n, (line, style) in enumerate(styled):
        x, y = boxes[n % 2][0] + 8, legend_y + _LINE * (n // 2)
        _draw_line(canvas, [(x, y), (x + 44, y)], style, line.ours)
        _draw_mark(canvas, (x + 22, y), style, line.ours)
    page = fine.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(page)
    _text(pen, (_EDGE, _EDGE), _cut(pen, title, 24, _WIDTH - 2 * _EDGE), 24)
    for panel in panels:
        panel.draw_texts(pen)
    for n, line in enumerate(lines):
        place = (boxes[n % 2][0] + 64, legend_y + _LINE * (n // 2))
        _text(pen, place, _cut(pen, line.label, 17, width - 72), 17, anchor="lm")
    with replacing(path) as beside:
        page.save(beside, format="PNG", optimize=True)


def _style(number: int) -> Style:
    return COLOURS[number % len(COLOURS)], number // len(COLOURS) % len(_CORNERS)


def _gibibytes(row: Row) -> float | None:
    return None if row.peak_bytes is None else row.peak_bytes / 2**30


class _Panel:
    """One quantity against the number of views."""

    def __init__(
        self,
        title: str,
        box: tuple[int, int, int, int],
        value: Callable[[Row], float | None],
        lines: Sequence[Series],
    ) -> None:
        self.title, self.box, self.value = title, box, value
        points = [point for line in lines for point in self.points(line)]
        self.empty = not points
        x, y, width, height = box
        across = _range([p[0] for p in points] or [1.0, 10.0], 1.15)
        up = _range([p[1] for p in points] or [1.0, 10.0], 1.35)
        self.x = Axis(*across, x + _LEFT, x + width - _RIGHT)
        self.y = Axis(*up, y + height - _BOTTOM, y + _TOP)

    def points(self, line: Series) -> list[Point]:
        """(views, value) of the rows that have one."""
        pairs = [(float(row.views), self.value(row)) for row in line.rows]
        return [(views, value) for views, value in pairs if value is not None]

    def draw_lines(
        self, canvas: ImageDraw.ImageDraw, lines: Sequence[tuple[Series, Style]]
    ) -> None:
        """Ground, grid and lines, in fine pixels; ours last, so that they lie on top."""
        x, y, width, height = (n * _FINE for n in self.box)
        canvas.rounded_rectangle((x, y, x + width, y + height), 10 * _FINE, PANEL)
        for tick in self.x.ticks():
            place = self.x.place(tick)
            _stroke(canvas, [(place, self.y.first), (place, self.y.last)], GRID, 1)
        for tick in self.y.ticks():
            place = self.y.place(tick)
            _stroke(canvas, [(self.x.first, place), (self.x.last, place)], GRID, 1)
        for line, style in sorted(lines, key=lambda pair: pair[0].ours):
            places = [(self.x.place(a), self.y.place(b)) for a, b in self.points(line)]
            _draw_line(canvas, places, style, line.ours)
            for at in places:
                _draw_mark(canvas, at, style, line.ours)

    def draw_texts(self, pen: ImageDraw.ImageDraw) -> None:
        """Title, ticks, and what the axis below counts."""
        x, y, width, height = self.box
        _text(pen, (x + 16, y + 14), self.title, 18)
        if self.empty:
            middle = (x + width / 2, y + height / 2)
            _text(pen, middle, "no figure", 17, FAINT_TEXT, "mm")
            return
        below = y + height - _BOTTOM + 8
        for tick in self.x.ticks():
            _text(pen, (self.x.place(tick), below), f"{tick:g}", 15, FAINT_TEXT, "ma")
        _text(pen, (x + width - _RIGHT, below + 20), "views", 15, FAINT_TEXT, "ra")
        for tick in self.y.ticks():
            place = (x + _LEFT - 10, self.y.place(tick))
            _text(pen, place, f"{tick:.3g}", 15, FAINT_TEXT, "rm")


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Around the values, at least a factor of four from end to end."""
    low, high = min(values) / margin, max(values) * margin
    missing = max(1.0, 4 / (high / low)) ** 0.5
    return low / missing, high * missing


def _stroke(
    canvas: ImageDraw.ImageDraw, points: Sequence[Point], colour: Colour, width: float
) -> None:
    fine = [(x * _FINE, y * _FINE) for x, y in points]
    canvas.line(fine, colour, round(width * _FINE), joint="curve")


def _draw_line(
    canvas: ImageDraw.ImageDraw, points: Sequence[Point], style: Style, ours: bool
) -> None:
    """Solid where ours, else dashed."""
    colour, _ = style
    if len(points) < 2:
        return
    if ours:
        _stroke(canvas, points, colour, 3)
        return
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        for n in range(math.ceil(length / (_DASH + _SPACE))):
            start = n * (_DASH + _SPACE) / length
            end = min(1.0, start + _DASH / length)
            ends = [(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in (start, end)]
            _stroke(canvas, ends, colour, 2)


def _draw_mark(canvas: ImageDraw.ImageDraw, at: Point, style: Style, ours: bool) -> None:
    """Filled where ours, else hollow."""
    (colour, mark), size = style, _MARK * _FINE
    x, y = at[0] * _FINE, at[1] * _FINE
    fill = colour if ours else PANEL
    if not _CORNERS[mark]:
        box = (x - size, y - size, x + size, y + size)
        canvas.ellipse(box, fill, colour, 2 * _FINE)
        return
    turns = [math.radians(angle) for angle in _CORNERS[mark]]
    reach = 1.3 * size
    canvas.polygon(
        [(x + reach * math.cos(turn), y + reach * math.sin(turn)) for turn in turns],
        fill,
        colour,
        2 * _FINE,
    )


def _text(
    pen: ImageDraw.ImageDraw,
    at: Point,
    text: str,
    size: int,
    colour: Colour = TEXT,
    anchor: str = "la",
) -> None:
    pen.text(at, text.translate(_SPELLED), colour, ImageFont.load_default(size), anchor=anchor)


def _cut(pen: ImageDraw.ImageDraw, text: str, size: int, width: float) -> str:
    """``text`` without its end where it is wider than ``width`` pixels."""
    font, short = ImageFont.load_default(size), text
    while len(short) > 2 and pen.textlength(short, font) > width:
        short = short[:-2] + "…"
    return short
