"""``vggt3 ablate`` as typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.training.ablation.toy import EXAM, ROWS, TRAINING, save_tiny, small_exam
from tests.training.fits import painted

from vggt3 import cli
from vggt3.training.ablation import work as working
from vggt3.training.rendering import Renderer


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation of a tiny backbone."""
    folder = tmp_path_factory.mktemp("ablation")
    content = {"weights": str(save_tiny(folder)), "training": TRAINING, "exam": EXAM, "rows": ROWS}
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Renderer, "__call__", painted)
    made = working.Work.__init__

    def with_small_pictures(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **{"exam": small_exam(), **kwargs})

    monkeypatch.setattr(working.Work, "__init__", with_small_pictures)


def run(*words: object) -> int:
    return cli.main(["ablate", *map(str, words), "--device", "cpu", "--debug"])


def test_rows_by_shares_then_the_table(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(file, "-o", out, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "| from scratch | ttt_shortconv, from scratch | 2 steps | 0 of 2 | 70,424 |" in printed
    assert "2 rows, 2 trainings; to do: 2 trainings, 12 views to score" in printed
    assert not out.exists(), "a dry run leaves nothing"
    assert run(file, "-o", out, "--row", "2/2") == 0
    printed = capsys.readouterr().out
    assert "- nothing yet of softmax" in printed
    other = tmp_path / "other"
    assert run(file, "-o", other, "--row", "1/2") == 0
    capsys.readouterr()
    assert run(file, "-o", out, "--merge", other) == 0
    printed = capsys.readouterr()
    assert "3 files taken from" in printed.err
    assert "of 2 scenes" not in printed.out and "as transcribed" in printed.out
    assert "v8, AUC@30 %, best first:" in printed.out
    assert (out / "table.md").read_text() == printed.out
    assert (out / "plot.png").stat().st_size > 1000
    assert "− softmax |" in printed.out
    assert run(file, "-o", out, "--against", "from scratch", "--report") == 0
    printed = capsys.readouterr()
    assert "− from scratch |" in printed.out and "− softmax |" not in printed.out
    table = (out / "table.md").read_text()
    assert "− softmax |" in table, "a report writes nothing"
    assert run(file, "-o", out, "--against", "from scratch") == 0
    assert capsys.readouterr().out == printed.out == (out / "table.md").read_text()
    other = tmp_path / "other.yaml"
    content = yaml.safe_load(file.read_text())
    other.write_text(yaml.safe_dump({**content, "exam": {**EXAM, "points": "depth"}}))
    assert run(other, "-o", out, "--report") == 2
    assert "must be of the same points (depth), got none" in capsys.readouterr().err
    assert cli.main(["evaluate", "compare", *map(str, (out / "scores").iterdir())]) == 0
    assert "AUC@30 %" in capsys.readouterr().out
    assert run(file, "-o", out, "--dry-run") == 0
    assert "to do: 0 trainings, 0 views to score" in capsys.readouterr().out


def test_what_is_wrong_is_said(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        ((tmp_path / "none.yaml",), "no such file"),
        ((file, "--row", "3"), "--row must look like 3/8"),
        ((file, "--report"), "must be a file of an ablation"),
        ((file, "--report", "--dry-run"), "must come one at a time, got --dry-run and --report"),
        ((file, "--against", "linear"), "against must be one of"),
        ((file, "--merge", tmp_path / "x"), "must be a file of an ablation"),
        ((file, "--fast-pictures"), "--fast-pictures must be used with a CUDA device"),
    ):
        assert run(*words, "-o", tmp_path / "out") in (1, 2)
        said = capsys.readouterr().err
        assert told in said and "trained" not in said, told
