"""The plot: places are right, every line is drawn in its own colour, nothing breaks on little."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggt3.evaluation.benchmark.plot import COLOURS, Axis, draw
from vggt3.evaluation.benchmark.rows import OURS, Row, Series


def line(ours: bool, *points: tuple[int, float | None, int | None]) -> Series:
    source = OURS if ours else "them"
    rows = tuple(
        Row(source, v, s, m, None if s or m else "does not fit") for v, s, m in points
    )  # fmt: skip
    return Series(source, ours, rows)


def coloured(path: Path, colour: tuple[int, int, int], *, right: bool) -> np.ndarray:
    """(x, y) of the pixels of nearly this colour within a panel."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    near = np.abs(picture - np.array(colour)).max(axis=2) < 12
    near[640:] = False  # the legend
    near[:, : 800 if right else 0] = False
    near[:, 1600 if right else 800 :] = False
    rows, columns = np.nonzero(near)
    return np.stack([columns, rows], axis=1)


def test_axis() -> None:
    axis = Axis(1.0, 1000.0, 100.0, 400.0)
    assert axis.place(1) == 100 and axis.place(1000) == pytest.approx(400)
    assert axis.place(100) - axis.place(10) == pytest.approx(100)
    assert axis.ticks() == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert Axis(0.01, 1e5, 0, 1).ticks() == pytest.approx([0.01, 0.1, 1, 10, 100, 1e3, 1e4, 1e5])
    assert Axis(2.1, 4.9, 0, 1).ticks() == [2.1, 4.9]


def test_a_line_of_slope_one_is_straight_and_rises(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    draw(path, [line(True, (10, 1.0, 2**30), (100, 10.0, 2**31), (1000, 100.0, 2**32))], "a title")
    dots = coloured(path, COLOURS[0], right=False)
    left, right = dots[dots[:, 0].argmin()], dots[dots[:, 0].argmax()]
    assert right[1] < left[1] - 300  # up is less
    slope = (right[1] - left[1]) / (right[0] - left[0])
    off = np.abs(dots[:, 1] - (left[1] + slope * (dots[:, 0] - left[0])))
    assert off.max() < 12
    assert len(coloured(path, COLOURS[0], right=True)) > 500


def test_lines_have_their_own_colours_and_problems_leave_gaps(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    ours = line(True, (10, 1.0, None), (100, None, None))
    draw(path, [ours, line(False, (10, 9.0, None), (100, 80.0, None))], "×" * 500)
    picture = Image.open(path)
    assert picture.size[0] == 1600 and picture.size[1] > 600
    dot = coloured(path, COLOURS[0], right=False)
    assert 0 < len(dot) < 300 and math.dist(dot.min(axis=0), dot.max(axis=0)) < 30
    assert len(coloured(path, COLOURS[1], right=False)) > 60
    assert len(coloured(path, COLOURS[0], right=True)) == 0  # no memory: an empty panel


def test_little_is_drawn_too(tmp_path: Path) -> None:
    for name, lines in (
        ("none", []),
        ("failed", [line(True, (4, None, None))]),
        ("one", [line(True, (4, 1.0, 2**20))]),
        ("many", [line(n < 3, (4, 1.0 + n, 2**20), (9, 2.0 + n, None)) for n in range(40)]),
    ):
        draw(tmp_path / f"{name}.png", lines, name)
        assert Image.open(tmp_path / f"{name}.png").size[0] == 1600
