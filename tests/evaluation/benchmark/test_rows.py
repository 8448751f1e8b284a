"""The file of a benchmark: what it takes, what it refuses, and which row counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.model.test_weights import disk_of
from vggt3 import checks
from vggt3.evaluation.benchmark.rows import FORMAT, OURS, Row, append, latest, read_rows, series

PEERS = Path(__file__).resolve().parents[3] / "experiments" / "peers.jsonl"
FACTS = {"attention": "linear", "sweeps": None, "options": {}, "size": [28, 42], "world": 1}


def test_a_row_comes_back_as_it_went(tmp_path: Path) -> None:
    rows = [Row(OURS, 8, 1.5, 2**30, None, FACTS), Row("them", 9, problem="out of memory")]
    for row in rows:
        append(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "rows.jsonl", os.write
    append(path, Row("x", 1, 1.0))
    before = path.read_bytes()
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:9]))
    with pytest.raises(OSError, match=r"No space left.*rows\.jsonl"):
        append(path, Row("x", 2, 1.0))
    assert path.read_bytes() == before


def test_a_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    """Where the system refuses the whole line it names no file itself."""
    path = tmp_path / "rows.jsonl"
    with disk_of(0), pytest.raises(OSError, match=r"File too large.*rows\.jsonl"):
        append(path, Row("x", 2, 1.0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nothing", 'line 2 must be a row with "format": "vggt3 benchmark 1", got nothing'),
        ("[1]", "must be a row"),
        (json.dumps({"format": "vggt3 exam 1", "source": "x", "views": 1}), "must be a row"),
        (json.dumps({"format": FORMAT, "views": 1, "seconds": 1}), "source must be a name"),
        (json.dumps({"format": FORMAT, "source": "x", "views": 0, "seconds": 1}), "views must"),
        (json.dumps({"format": FORMAT, "source": "x", "views": True, "seconds": 1}), "views must"),
        (json.dumps({"format": FORMAT, "source": "x", "views": 1, "seconds": -1}), "be above 0"),
        (f'{{"format": "{FORMAT}", "source": "x", "views": 1, "seconds": NaN}}', "be above 0"),
        (json.dumps({"format": FORMAT, "source": "x", "views": 1}), "must have seconds"),
    ],
)
def test_a_line_that_is_no_row_is_told(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, Row("x", 1, 1.0))
    path.write_text(path.read_text() + line)
    with pytest.raises(checks.DataError) as told:
        read_rows(path)
    assert message in str(told.value)


@pytest.mark.parametrize("kept", [3, 40, -1])
def test_a_line_that_is_cut_short_is_told_with_what_to_do(kept: int, tmp_path: Path) -> None:
    """As a kill during a write leaves it; within a letter of two bytes too."""
    path = tmp_path / "rows.jsonl"
    append(path, Row("x", 1, 1.0))
    whole = path.read_bytes()
    append(path, Row("xé", 2, problem="×"))
    torn = path.read_bytes()[len(whole) :].rstrip(b'}"\n')[:kept]
    path.write_bytes(whole + torn)
    with pytest.raises(
        checks.DataError, match=r"line 2 must be whole.*cut short.*delete this last"
    ):
        read_rows(path)
    assert path.read_bytes() == whole + torn
    path.write_bytes(whole)
    assert len(read_rows(path)) == 1


def test_a_last_line_without_an_end_is_not_glued_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [Row("x", 1, 1.0), Row("y", 2, 2.0)]
    append(path, rows[0])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(path, rows[1])
    assert read_rows(path) == rows


def test_the_last_measurement_counts_and_no_problem_hides_one() -> None:
    slow, fast = Row(OURS, 8, 2.0, facts=FACTS), Row(OURS, 8, 1.0, facts={**FACTS, "commit": "b"})
    failed = Row(OURS, 8, problem="does not fit", facts=FACTS)
    other = Row(OURS, 9, 3.0, facts=FACTS)
    assert list(latest([slow, fast, failed, other]).values()) == [fast, other]
    assert list(latest([failed, slow]).values()) == [slow]


@pytest.mark.parametrize(
    "changed", [{"sweeps": 2}, {"size": [42, 28]}, {"world": 2}, {"device": "other"}]
)
def test_rows_of_different_things_are_kept_apart(changed: dict[str, object]) -> None:
    rows = [Row(OURS, 8, 1.0, facts=FACTS), Row(OURS, 8, 1.0, facts={**FACTS, **changed})]
    assert len(latest(rows)) == 2
    assert len(series(rows)) == 2


def test_a_label_says_what_sets_a_line_apart() -> None:
    rows = [
        Row("them", 4, 9.0, facts={"device": "A100", "world": 2}),
        Row(OURS, 8, 2.0, facts={**FACTS, "run": {"memory": "auto", "chunk": None}}),
        Row(OURS, 4, 1.0, facts={**FACTS, "run": {"memory": "auto", "chunk": None}}),
        Row(OURS, 4, 1.0, facts={**FACTS, "sweeps": 2, "run": {"memory": "auto", "chunk": 3}}),
    ]
    lines = series(rows)
    labels = [line.label for line in lines]
    assert labels == ["linear, chunk None", "linear, 2 sweeps, chunk 3", "them (2 × A100)"]
    assert [row.views for row in lines[0].rows] == [4, 8]


def test_the_peers_name_their_sources() -> None:
    rows = read_rows(PEERS)
    assert {row.views for row in rows} >= {100, 500, 1000}
    assert all(row.source != OURS and row.facts["cite"] for row in rows)
    slowest = {(row.source, row.views): row.seconds for row in rows if row.facts["world"] == 1}
    assert slowest["VGG-T³, authors' code, 2 sweeps", 1000] == 60.3
