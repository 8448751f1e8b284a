"""What the table, the order beside the paper's, and the plot say of scores that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggt3.evaluation.benchmark.plot import COLOURS
from vggt3.training.ablation import plot, table
from vggt3.training.ablation.settings import RowSettings
from vggt3.training.ablation.table import Line

PAPER = {"softmax": 76.33, "ttt_mlp": 72.16, "scratch": 52.95}


def line(name: str, gain: float, scenes: int = 12, **changes: object) -> Line:
    """A row whose AUC is the scene's own difficulty plus ``gain``, give or take 0.1."""
    row = RowSettings(name, "softmax", paper={"auc@30": PAPER[name]} if name in PAPER else {})
    by_scene = {
        n: {
            "auc@30": 40 + 5 * n + gain + 0.1 * (-1) ** n,
            "cd": 0.2 - gain / 100,
            "nc": float("nan") if n == 3 else 0.8,
            "absrel": 0.1,
        }
        for n in range(scenes)
    }
    return replace(Line(row, "v8", 8, by_scene), **changes)


def compared(*found: Line) -> list[Line]:
    """With differences to the first."""
    first, *rest = found
    return [
        first,
        *(replace(x, differences={s: x.minus(first, s) for s in table.HEADS}) for x in rest),
    ]


def test_differences_are_paired_by_scene() -> None:
    softmax, other = line("softmax", 0), line("other", -3)
    found = other.minus(softmax, "auc@30")
    assert found.mean == pytest.approx(-3) and found.high == pytest.approx(-3)
    assert table.decided(found), "though the scenes differ by far more"
    assert other.scores["auc@30"].high - other.scores["auc@30"].low > 15
    assert other.minus(softmax, "nc").count == 11, "a scene without a cloud is left out"
    assert not table.decided(line("other", -3, 9).minus(softmax, "auc@30")), "too few scenes"
    fewer = line("other", -3, 5)
    assert fewer.minus(softmax, "auc@30").count == softmax.minus(fewer, "auc@30").count == 5


def test_the_table() -> None:
    rows = compared(line("softmax", 0, parameters=1336320, ms_a_view=1.5), line("ttt_mlp", -3))
    head, rule, first, second = table.markdown(rows, "softmax").splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|") == 17
    cells = [cell.strip() for cell in first.split("|")[1:-1]]
    assert cells[:5] == ["softmax", "8", "12", "67.5 [57.5, 77.5]", ""] or cells[3].startswith(
        "67.5"
    )
    assert cells[11:15] == ["1,336,320", "1.50", "76.33", ""]
    cells = [cell.strip() for cell in second.split("|")[1:-1]]
    assert cells[4] == "-3.0 [-3.0, -3.0] *" and cells[6] == "+0.030 [+0.030, +0.030] *"
    assert cells[11:14] == ["", "", "72.16"]
    assert table.notes(rows, {"v8": 13}) == [
        "softmax, v8: 12 of 13 scenes",
        "ttt_mlp, v8: 12 of 13 scenes",
    ]
    broken = replace(rows[0], facts={"problem": "the loss of step 3 must be finite, got nan"})
    (note,) = table.notes([broken], {"v8": 12})
    assert note.startswith("softmax: the loss of step 3")
    timed = [replace(row, ms_a_view=1.0, timed_on=f"GPU {n}") for n, row in enumerate(rows)]
    assert table.notes(timed, {"v8": 12}) == ["timed on GPU 0: softmax", "timed on GPU 1: ttt_mlp"]


def test_the_order_beside_the_papers() -> None:
    rows = [line("softmax", 0), line("ttt_mlp", -3), line("scratch", -20), line("other", 9)]
    (told,) = table.order(rows)
    assert "softmax 67.5, ttt_mlp 64.5, scratch 47.5 (as in the paper)" in told
    rows[2] = line("scratch", 4)
    (told,) = table.order(rows)
    assert "best first: scratch 71.5, softmax 67.5, ttt_mlp 64.5" in told
    assert "scratch before softmax, more than chance; scratch before ttt_mlp" in told
    rows[2] = line("scratch", 4, scenes=9)
    (told,) = table.order(rows)
    assert "scratch 64.0, softmax 60.0" in told, "over the scenes that all have"
    assert "scratch before ttt_mlp, too few scenes to say" in told
    assert table.order([line("other", 0), line("softmax", 0)]) == []


def test_the_plot(tmp_path: Path) -> None:
    """A mark lies right of another's exactly if its difference is larger; all is within."""
    rows = compared(line("softmax", 0), line("ttt_mlp", -3), line("scratch", -20))
    path = tmp_path / "plot.png"
    plot.draw(path, rows, "softmax", "a title")
    page = np.asarray(Image.open(path).convert("RGB")).astype(int)
    found = np.argwhere(np.abs(page - np.array(COLOURS[0])).sum(-1) < 12)
    first = found[found[:, 1] < 28 + 250 + 330]  # AUC's panel, and the legend above it
    marks = first[first[:, 0] > 130]
    heights = sorted({int(y) // 14 for y, _ in marks})
    assert len(heights) >= 2
    upper = marks[marks[:, 0] < marks[:, 0].mean()][:, 1].mean()
    lower = marks[marks[:, 0] > marks[:, 0].mean()][:, 1].mean()
    assert upper > lower + 100, "-3 lies right of -20"
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]


def test_a_plot_of_nothing_yet(tmp_path: Path) -> None:
    rows = [line("softmax", 0), replace(line("other", 0), by_scene={})]
    plot.draw(tmp_path / "plot.png", compared(*rows), "softmax", "a title")
    assert Image.open(tmp_path / "plot.png").size[0] > 300
