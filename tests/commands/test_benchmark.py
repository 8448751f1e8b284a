"""``vggt3 benchmark`` as typed: what it prints and writes, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vggt3 import cli
from vggt3.evaluation.benchmark import machine, measure
from vggt3.evaluation.benchmark.equality import Check
from vggt3.evaluation.benchmark.measure import Benchmark

PEERS = Path(__file__).resolve().parents[2] / "experiments" / "peers.jsonl"
TINY = ("--preset", "tiny", "--device", "cpu", "--size", "28x42", "--repeat", "1", "--views", "1,2")
Told = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIDES", {"cpu": (64,)})
    monkeypatch.setattr(machine, "BATCH_SECONDS", 0.001)


def run(*words: object) -> int:
    return cli.main(["benchmark", *map(str, words)])


def test_measure_show_draw_and_go_on(tmp_path: Path, capsys: Told) -> None:
    out, plot = tmp_path / "rows.jsonl", tmp_path / "plot.png"
    words = (*TINY, "--attention", "linear", "-o", out)
    assert run(*words, "--plot", plot) == 0
    told = capsys.readouterr()
    assert "2 rows to measure, about" in told.err.splitlines()[0]
    assert "2/2 linear, 2 views of 28×42: " in told.err
    assert told.out.startswith("tiny, random weights  ·  28×42  ·  float32")
    assert "of matmul" in told.out and "linear\n" in told.out
    assert Image.open(plot).size[0] == 1600
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["views"] for row in rows] == [1, 2]
    assert rows[0]["command"].split()[0] == "vggt3" and rows[0]["source"] == "vggt3"
    assert run(*words, "--compare", PEERS, "--markdown") == 0
    told = capsys.readouterr()
    assert told.err.startswith("2 rows are there already (commit")
    assert out.read_text().count("\n") == 2
    lines = told.out.splitlines()
    assert lines[0].startswith("| what | views | seconds | encode |")
    assert all(line.count("|") == 11 for line in lines if line.startswith("|"))
    assert "| VGG-T³, authors' code, 2 sweeps (H100 80GB) | 1000 | 60.3 |" in told.out
    assert "| ZipMap, authors' code (H100 80GB) | 1000 | out of memory |" in told.out
    assert "- ZipMap, authors' code: measured when issue 4" in told.out


def test_a_wrong_kernel_gives_no_figure_and_exit_code_1(
    capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [Check("linear: read", 0.25, 1e-4)]
    monkeypatch.setattr(measure.equality, "check_model", lambda *_: wrong)
    assert run(*TINY, "--attention", "linear") == 1
    shown = capsys.readouterr().out
    assert "views: refused: linear: read is 2.5e-01 off its reference (at most 1e-04)" in shown
    assert "refused       –       –" in shown


def test_ctrl_c_keeps_what_is_done(
    tmp_path: Path, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Benchmark._row

    def once(self: Benchmark, engine: object, task: object, facts: object) -> object:
        if self.rows:
            raise KeyboardInterrupt
        return true(self, engine, task, facts)  # type: ignore[arg-type]

    monkeypatch.setattr(Benchmark, "_row", once)
    out = tmp_path / "rows.jsonl"
    assert run(*TINY, "--attention", "linear", "-o", out) == 130
    told = capsys.readouterr().err
    assert "1/2 linear, 1 view of 28×42: " in told
    assert told.endswith(f"interrupted; 1 row is kept in {out}\n")
    assert len(out.read_text().splitlines()) == 1
    assert run(*TINY, "--attention", "linear", "-o", out) == 130
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("1 row is there already (commit") and "repeats it)" in told[0]
    assert told[1].startswith("1 row to measure, about")


def test_ctrl_c_before_the_first_row(
    tmp_path: Path, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Benchmark, "_row", stop)
    out = tmp_path / "rows.jsonl"
    assert run(*TINY, "--attention", "linear", "-o", out) == 130
    assert capsys.readouterr().err.endswith("vggt3: interrupted, no row is measured yet\n")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--attention", "softmx"), 2, "did you mean 'softmax'"),
        (("--views", "0"), 2, "--views must be whole numbers from 1, got '0'"),
        (("--views", "eight"), 2, "--views must be whole numbers from 1"),
        (("--size", "100x100"), 2, "--size must be HEIGHTxWIDTH in multiples of 14"),
        (("--repeat", "0"), 2, "--repeat must be at least 1"),
        (("--attention.sweeps", "2"), 2, "--attention.sweeps must be given as --sweeps"),
        (("--device", "gpu"), 2, "--device must be"),
        (("-o", "OTHER"), 1, "line 1 must be a row with"),
        (("-o", "none/rows.jsonl"), 2, "be in a folder that can be written"),
        (("--compare", "none.jsonl"), 1, "'none.jsonl' must be JSON lines of a benchmark"),
        (("--compare", "OTHER"), 1, "line 1 must be a row with"),
        (("--plot", "none/plot.png"), 2, "--plot 'none/plot.png' must be in a folder"),
        (("-o", "/proc/rows.jsonl"), 2, "OUT '/proc/rows.jsonl' must be in a folder that can"),
        (("--plot", "/proc/plot.png"), 2, "--plot '/proc/plot.png' must be in a folder that can"),
        (("--plot", "FOLDER.png"), 2, "must be a file, got a folder"),
        (("--plot", "plot.pdf"), 2, "--plot must end in .png"),
    ],
)
def test_bad_input_gets_one_line(
    words: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"format": "vggt3 exam 1"}\n')
    (tmp_path / "FOLDER.png").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "matmul_rate", None)  # said before anything is measured
    named = [str(other) if word == "OTHER" else word for word in words]
    assert run(*TINY[:4], *named) == code
    told = capsys.readouterr().err.strip()
    assert message in told and told.count("\n") == 0, told
    assert other.read_text() == '{"format": "vggt3 exam 1"}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FOLDER.png", "other.jsonl"]
