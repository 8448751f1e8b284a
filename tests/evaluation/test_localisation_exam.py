"""``rooms-v1-localise``: resumable, comparable, and what is counted."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from vggt3 import cli
from vggt3.checks import UsageError
from vggt3.evaluation import localisation_exam, localising
from vggt3.evaluation.examine import open_examined
from vggt3.evaluation.localisation_exam import (
    NAME,
    LocalisationExam,
    LocalisationOptions,
    paired,
    verdict,
)
from vggt3.evaluation.localising import LocalisationRow
from vggt3.evaluation.record import Record, Row, read_record
from vggt3.evaluation.rooms import Exam, read_exam
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.model.choice import ModelChoice

GOOD = LocalisationRow(0, 60.0, 2.0, 0.1, 2.8, 0.14, 0.9)
BETTER = LocalisationRow(1, 80.0, 1.0, 0.2, 1.1, 0.22, 0.9)
BAD = LocalisationRow(2, 49.9, 10.0, 1.0, 90.0, 9.0, 0.1)


def small() -> Exam:
    """The exam with pictures that take no time."""
    exam = read_exam()
    v300 = exam.sets["v300"]
    little = replace(v300, config=replace(v300.config, size=(28, 28), views=150))
    return replace(exam, sets={**exam.sets, "v300": little}, samples=1)


def exam(output: Path | None = None, seed: int = 0, scenes: int = 1) -> LocalisationExam:
    model = open_examined(ModelChoice(preset="tiny", seed=seed)).model
    engine = SceneEngine(model, RunOptions(device="cpu"))
    return LocalisationExam(engine, LocalisationOptions(scenes=scenes), small(), output)


def record(*rows: LocalisationRow) -> Record:
    made = {(NAME, row.index): Row(NAME, row.index, row.scores(), {}, 1.0) for row in rows}
    return Record({}, rows=dict(made))


def test_only_scenes_with_a_good_map_count() -> None:
    head, rows = verdict(record(GOOD, BETTER, BAD))
    assert head == ["median", "of the 3 scenes", "of 2 whose map has AUC@30 ≥ 50"]
    told = {row[0]: row[1:] for row in rows}
    assert told["map views' AUC@30 %"] == ["60.0", "70.0"]
    # Medians of three: 2.8 / 2 and 0.22 / 0.2; of two, the means: 1.95 / 1.5 and 0.18 / 0.15.
    assert told["queries' rotation error over the map's"] == ["1.400", "1.300"]
    assert told["queries' translation error over the map's"] == ["1.100", "1.200"]
    assert told["both at most 1.5"] == ["–", "holds"], "only scenes that count are judged"
    ends = [
        verdict(record(row))[1][-1][1:]
        for row in (
            replace(GOOD, query_translation_m=0.16),
            BAD,
            replace(GOOD, map_auc=49.9),  # would hold, and does not count
            replace(GOOD, map_translation_m=math.nan, query_translation_m=math.nan),
        )
    ]
    assert ends == [
        ["–", "missed"],
        ["–", "– (no scene counts)"],
        ["–", "– (no scene counts)"],
        ["–", "– (no median of both)"],
    ]


def test_a_scene_without_a_value_is_left_out_of_both_columns() -> None:
    unknown = replace(BAD, map_auc=math.nan, query_rotation_deg=math.nan)
    told = {row[0]: row[1:] for row in verdict(record(GOOD, BETTER, unknown))[1]}
    assert told["map views' AUC@30 %"] == ["70.0", "70.0"]
    assert told["rotation error, median °"] == ["1.950", "1.950"]


def test_ratios_are_paired_by_scene() -> None:
    _, rows = paired(record(GOOD, BETTER, BAD))
    assert [row[0].rpartition(", ")[2] for row in rows] == ["all"] * 2 + ["those that count"] * 2
    assert [row[-1] for row in rows] == ["3", "3", "2", "2"]
    assert rows[0][1].startswith(f"{(1.4 + 1.1 + 9) / 3:.3f} [") and rows[0][2] == "1.400"
    assert rows[2][1].startswith("1.250 [") and rows[2][2] == "1.250"
    assert paired(record(BAD))[1][2][1:] == ["–", "–", "0"]


def test_a_row_comes_back_from_the_file() -> None:
    assert LocalisationRow.of(0, GOOD.scores()) == GOOD


def test_a_run_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "run.json", []
    plain = localisation_exam.localisation_row

    def counted(*given: object) -> LocalisationRow:
        asked.append(given)
        return plain(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(localisation_exam, "localisation_row", counted)
    exam(path).run()
    whole = exam(path, scenes=2).run()
    assert len(asked) == 2 and len(whole.rows) == 2
    assert [(len(given[2]), len(given[3])) for given in asked] == [(100, 50)] * 2  # type: ignore[index]
    scores = next(iter(read_record(path).rows.values())).scores
    assert 0 <= scores["map auc@30"] <= 100 and scores["rotation median"] > 0
    assert (scores["views"], scores["queries"]) == (100, 50)
    with pytest.raises(UsageError, match="be of the same backbone"):
        exam(path, seed=1)


def test_a_map_that_cannot_be_aligned_is_a_row_without_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(*_: object) -> None:
        localising.checks.fail("points to align", "x", "y", error=localising.checks.DataError)

    monkeypatch.setattr(localising, "align_cameras", nowhere)
    (row,) = exam().run().rows.values()
    assert math.isnan(row.scores["rotation median"]) and row.scores["map auc@30"] >= 0


def test_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(localisation_exam, "read_exam", small)
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "run.json"
    words = ("evaluate", NAME, "--preset", "tiny", "--device", "cpu", "--scenes", "1", "-o")
    assert cli.main([*words, str(out)]) == 0
    told = capsys.readouterr()
    for text in ("both at most 1.5", "paired by scene", "[one scene]", "tensors SHA-256"):
        assert text in told.out, text
    table = told.out[told.out.index("by scene: ") :].splitlines()
    heads = re.findall(r"[^\s│┃]+", "\n".join(table[2:4]))
    assert "scene" in heads and max(map(len, heads)) < 7, "whole words at 80 columns"
    assert {"map", "query", "ratio", "AUC", "°", "m", "conf."} <= set(heads)
    assert "weights are random" in told.err
    assert json.loads(out.read_text())["summary"][NAME]["rotation ratio"]["scenes"] == 1
    assert cli.main([*words, str(out), "--markdown"]) == 0  # nothing is computed again
    told = capsys.readouterr()
    assert "| paired by scene | mean [95 % interval] | median | scenes |" in told.out
    assert "| scene | map views' AUC@30 % | map views' rotation error, median ° |" in told.out
    assert cli.main(["evaluate", "compare", str(out), str(out), "--markdown"]) == 0
    assert "queries' rotation error over the map's" in capsys.readouterr().out
