"""``vggt3 evaluate`` as typed: what it prints and writes, and what bad input gets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vggt3 import cli
from vggt3.evaluation.examine import Examination

TINY = ("--preset", "tiny", "--device", "cpu", "--scenes", "1", "--points", "none")


def run(*words: object) -> int:
    return cli.main(["evaluate", *map(str, words)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of two models over one scene, with one cache."""
    folder = tmp_path_factory.mktemp("runs")
    for name, extra in (("a", ()), ("b", ("--seed", "1"))):
        out = folder / f"{name}.json"
        assert run("rooms-v1", *TINY, "-o", out, "--cache", folder / "cache", *extra) == 0
    return folder / "a.json", folder / "b.json"


def test_the_table(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = runs[0].read_text()
    assert run("rooms-v1", *TINY, "-o", runs[0]) == 0  # all is there: nothing is computed
    printed = capsys.readouterr()
    for text in ("AUC@30 %", "trivial guess", "RTA@15 %", "AbsRel", "v8", "still pairs"):
        assert text in printed.out
    assert "CD" not in printed.out
    assert "weights are random" in printed.err
    assert json.loads(before)["sets"] == json.loads(runs[0].read_text())["sets"]


def test_the_table_is_of_the_scenes_asked_for(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though the file knows more."""
    content = json.loads(runs[0].read_text())
    (row,) = content["sets"]["v8"]
    content["sets"]["v8"].append({**row, "scene": row["scene"] + 1})
    more = tmp_path / "more.json"
    more.write_text(json.dumps(content))
    assert run("rooms-v1", *TINY, "-o", more, "--markdown") == 0
    told = capsys.readouterr().out
    assert "| scenes | 1 |" in told and "[one scene]" in told, "one scene has no interval"


def test_markdown(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)  # a bare GPU machine
    assert run("rooms-v1", *TINY, "-o", runs[0], "--markdown") == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[:2] == ["| mean [95 % interval] | v8 | median |", "| --- | --- | --- |"]
    table, told = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert all(line.count("|") == 4 for line in table)
    (row,) = json.loads(runs[0].read_text())["sets"]["v8"]
    assert table[2].endswith(f"| {row['scores']['auc@30']:.1f} |")
    for what in ("command: vggt3", "protocol: rooms-v1", "tensors SHA-256: "):
        assert any(line.startswith(f"- {what}") for line in told), what


def test_the_file_says_where_it_comes_from(runs: tuple[Path, Path]) -> None:
    content = json.loads(runs[0].read_text())
    (origin,), about = content["origins"], content["about"]
    assert origin["version"] and "tiny with random weights" in origin["model"]
    assert about["attention"][0].startswith("0-3: ttt_shortconv")
    (row,) = content["sets"]["v8"]
    assert row["scores"]["pairs"] == 28 and "auc@30" in row["trivial"]


def test_two_runs_are_compared(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", *runs, "--markdown") == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "| set | scenes | score | ours | theirs | difference | excludes 0 |"
    assert lines[2].startswith("| v8 | 1 | AUC@30 % |") and lines[2].endswith("| too few |")
    assert run("compare", runs[0], runs[0]) == 0
    assert "yes" not in capsys.readouterr().out


def test_scenes_that_are_there_are_not_drawn_and_said(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn = tmp_path / "run.json", tmp_path / "drawn"
    words = (*TINY[:-2], "--points", "depth", "--pictures", drawn)
    cache = ("--cache", runs[0].parent / "cache")
    assert run("rooms-v1", *words, *cache, "-o", out) == 0
    assert "drawn" not in capsys.readouterr().err and len(list(drawn.iterdir())) == 1
    assert run("rooms-v1", *words, *cache, "-o", out) == 0
    told = f"1 of 1 scene scored already in '{out}' and not drawn: leave -o out"
    assert told in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_done(
    runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(self: Examination, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Examination, "_row", stop)
    cache = runs[0].parent / "cache"
    assert run("rooms-v1", *TINY, "-o", tmp_path / "run.json", "--cache", cache) == 130
    assert "interrupted, 0 scenes are kept in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("rooms-v1", "--set", "v9"), 2, "--set must be one of"),
        (("rooms-v1", "--points", "dept"), 2, "did you mean 'depth'"),
        (("rooms-v1", "--attention.sweps", "1"), 2, "did you mean 'sweeps'"),
        (("rooms-v1", "--cache", __file__), 2, "--cache"),
        (("rooms-v1", "-o", "none/run.json"), 2, "be in a folder that can be written"),
        (("rooms-v1", "-o", "/proc/run.json"), 2, "be in a folder that can be written"),
        (("rooms-v1", "-o", "OTHER"), 2, "be of the same backbone"),
        (("rooms-v2",), 2, "did you mean 'rooms-v1'"),
        (("compare", "none.json", "none.json"), 1, "must be the file of an exam, got No such file"),
        (("compare", "none.json"), 2, "THEIRS must be given"),
    ],
)
def test_bad_input_gets_one_line(
    words: tuple[str, ...],
    code: int,
    message: str,
    runs: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = TINY if words[0] == "rooms-v1" and "--points" not in words else ()
    tiny = (*TINY[:-2], *words[1:]) if "--points" in words else (*words[1:], *tiny)
    named = [str(runs[1]) if word == "OTHER" else word for word in tiny]
    assert run(words[0], *named) == code
    told = capsys.readouterr().err.strip()
    assert message in told and told.count("\n") <= 1, told
