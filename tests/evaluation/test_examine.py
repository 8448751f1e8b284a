"""A run from beginning to end: rows, the file, going on, refusing, comparing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.test_weights import disk_of
from vggt3.checks import DataError, PlanError, UsageError
from vggt3.evaluation import examine
from vggt3.evaluation.examine import (
    Examination,
    ExamOptions,
    exam_engine,
    open_examined,
    predict,
)
from vggt3.evaluation.pictures import Pictures
from vggt3.evaluation.record import Record, Row, compare, open_record, read_record, unlike
from vggt3.evaluation.rooms import Exam, read_exam
from vggt3.evaluation.tables import origin
from vggt3.inference.collect import Collector
from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice
from vggt3.types import Views

CPU = RunOptions(device="cpu")


def small() -> Exam:
    """The exam with pictures that take no time."""
    exam = read_exam()
    sets = {
        name: replace(s, config=replace(s.config, size=(28, 42), views=3))
        for name, s in exam.sets.items()
    }
    return replace(exam, sets=sets)


def engine(seed: int = 0) -> Engine:
    return exam_engine(open_examined(ModelChoice(preset="tiny", seed=seed)).model, CPU)


Sit = Callable[..., Examination]


@pytest.fixture(scope="module")
def sit() -> Sit:
    def made(  # type: ignore[no-untyped-def]
        output: Path | None = None,
        model: Engine | None = None,
        command: str = "a test",
        **options: object,
    ):
        chosen = ExamOptions(**options)  # type: ignore[arg-type]
        return Examination(model or engine(), chosen, small(), output, {"command": command})

    return made


def test_rows_and_file(sit: Sit, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    record = sit(path, set="v8,duplicates", scenes=2).run()
    assert record.sets == ["v8", "duplicates"] and len(record.rows) == 4
    row = next(iter(record.rows.values()))
    assert row.scores["pairs"] == 3 and 0 <= row.scores["auc@30"] <= 100
    assert row.scores["cd"] > 0 and row.scores["cd head"] > 0 and 0 < row.scores["nc"] <= 1
    content = json.loads(path.read_text())
    assert content["about"]["canonical"] and content["about"]["exam"].startswith("rooms-v1 ")
    assert [origin["command"] for origin in content["origins"]] == ["a test"]
    assert {row["origin"] for rows in content["sets"].values() for row in rows} == {0}
    assert len(content["about"]["tensors"]) == 64
    mean = content["summary"]["v8"]["auc@30"]
    values = [row.scores["auc@30"] for row in record.of("v8").values()]
    assert mean["mean"] == pytest.approx(sum(values) / 2, abs=1e-6) and mean["scenes"] == 2
    assert mean["low"] <= mean["mean"] <= mean["high"]
    read = read_record(path)
    assert read.rows.keys() == record.rows.keys()
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_run_is_gone_on_with(sit: Sit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    rows = sit(path, scenes=3).rows()
    next(rows)
    rows.close()  # as Ctrl-C ends it
    assert len(read_record(path).rows) == 1 and "summary" not in json.loads(path.read_text())
    asked = []
    plain = examine.predict
    monkeypatch.setattr(examine, "predict", lambda *x: asked.append(x[1].index) or plain(*x))
    whole = sit(path, scenes=3).run()
    assert len(asked) == 2 and len(whole.rows) == 3
    before = path.read_bytes()
    sit(path, scenes=3).run()
    assert len(asked) == 2 and path.read_bytes() == before
    sit(tmp_path / "fresh.json", scenes=3).run()
    stopped, fresh = (json.loads(p.read_text()) for p in (path, tmp_path / "fresh.json"))
    assert stopped["summary"] == fresh["summary"], "the same bits, stopped or not"
    pairs = zip(stopped["sets"]["v8"], fresh["sets"]["v8"], strict=True)
    assert all(a["scores"] == b["scores"] and a["trivial"] == b["trivial"] for a, b in pairs)


def test_every_row_keeps_the_run_that_computed_it(sit: Sit, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    sit(path, command="first", scenes=1, points="none").run()
    sit(path, command="only looks", scenes=1, points="none").run()
    sit(path, command="second", set="v24", scenes=1, points="none").run()
    sit(path, command="third", scenes=3, points="none").run()
    content = json.loads(path.read_text())
    assert [one["command"] for one in content["origins"]] == ["first", "second", "third"]
    numbers = {name: [row["origin"] for row in rows] for name, rows in content["sets"].items()}
    assert numbers == {"v8": [0, 2, 2], "v24": [1]}
    record = read_record(path)
    told = origin(record)
    assert told[:3] == [
        "command of 1 scene: first",
        "command of 1 scene: second",
        "command of 2 scenes: third",
    ]
    assert sum(line.startswith("commit: ") for line in told) == 1, "all three have one"
    part = record.only([task for task in record.rows if task[0] == "v24"])
    assert origin(part)[0] == "command: second"


def test_files_with_one_origin_are_read_and_gone_on_with(sit: Sit, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    sit(path, command="old", scenes=2, points="none").run()
    content = json.loads(path.read_text())
    content["origin"] = content.pop("origins")[0]
    for row in content["sets"]["v8"]:
        row.pop("origin")
    path.write_text(json.dumps(content))
    sit(path, command="new", scenes=3, points="none").run()
    content = json.loads(path.read_text())
    assert [one["command"] for one in content["origins"]] == ["old", "new"]
    assert [row["origin"] for row in content["sets"]["v8"]] == [0, 0, 1]
    content["sets"]["v8"][0]["origin"] = 2
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="must be the file of an exam, got no 2"):
        sit(path)


@pytest.mark.parametrize(
    ("model", "options", "what"),
    [
        (ModelChoice(preset="tiny", seed=1), {}, "backbone"),
        (ModelChoice(preset="tiny", attention_options={"sweeps": 3}), {}, "attention"),
        (ModelChoice(preset="tiny"), {"points": "depth"}, "points"),
    ],
)
def test_another_run_is_refused(
    sit: Sit, tmp_path: Path, model: ModelChoice, options: dict[str, str], what: str
) -> None:
    path = tmp_path / "run.json"
    sit(path, scenes=1).run()
    before = path.read_bytes()
    other = exam_engine(open_examined(model).model, CPU)
    with pytest.raises(UsageError, match=f"be of the same {what}"):
        sit(path, other, scenes=1, **options)
    assert path.read_bytes() == before


def test_a_full_disk_is_said_with_the_file_and_keeps_the_old_one(sit: Sit, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    record = sit(path, scenes=1).run()
    before = path.read_bytes()
    with disk_of(100), pytest.raises(OSError, match=r"File too large.*run\.json") as caught:
        record.save()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_what_is_no_record_is_refused(sit: Sit, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for text in ("", "{}", '{"format": "another"}', "[1]"):
        path.write_text(text)
        with pytest.raises(DataError, match="must be the file of an exam"):
            sit(path)
        assert path.read_text() == text
    with pytest.raises(UsageError, match="folder that can be written"):
        open_record(tmp_path / "none" / "run.json", {}, {})


def test_a_picture_of_every_scene(sit: Sit, tmp_path: Path) -> None:
    drawn = sit(pictures=tmp_path / "pictures", scenes=2).run()
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    first = min(int(row.scene) for row in drawn.rows.values())
    assert len(names) == 4 and names[0] == f"rooms-v1-v8-{first:06d}-depth.png"
    plain = sit(scenes=2).run()
    assert [r.scores for r in drawn.rows.values()] == [r.scores for r in plain.rows.values()]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"--pictures .* must be a folder, got a file"):
        sit(pictures=tmp_path / "file", scenes=1)
    with pytest.raises(UsageError, match="--pictures must be left out with --points none"):
        ExamOptions(points="none", pictures=tmp_path)


def test_impossible_options_are_said(sit: Sit, tmp_path: Path) -> None:
    for options, message in (
        ({"set": "v8,v80"}, "--set must be one of"),
        ({"scenes": 0}, "--scenes must be at least 1"),
        ({"points": "all"}, "--points must be one of"),
        ({"workers": -2}, "--workers"),
        ({"fast_pictures": True}, "--fast-pictures must be used with a CUDA device"),
        ({"fast_pictures": True, "cache": tmp_path}, "--cache must hold canonical"),
    ):
        with pytest.raises(UsageError, match=message):
            sit(**options)


def test_what_does_not_fit_is_told_of_options_that_there_are(sit: Sit) -> None:
    model = open_examined(ModelChoice(preset="tiny", seed=0, attention="softmax")).model
    one = Engine(model, CPU).plan_sizes([(28, 42)]).needed
    tight = exam_engine(model, replace(CPU, memory=str(int(1.001 * one))))
    with pytest.raises(PlanError) as raised:
        sit(model=tight, scenes=1).run()
    assert str(raised.value).endswith(
        "; give a --set of fewer views, --precision bf16, or a backend with a bounded state"
    )


def test_tasks_keep_their_order() -> None:
    exam = read_exam()
    assert len(ExamOptions(set="all").tasks(exam)) == sum(len(s.scenes) for s in exam.sets.values())
    tasks = ExamOptions(set="hard, v8,hard", scenes=1).tasks(exam)
    assert tasks == [("hard", exam.sets["hard"].scenes[0]), ("v8", exam.sets["v8"].scenes[0])]


def test_the_prediction_is_the_engines() -> None:
    """Points of both kinds from one run are those of a run for each."""
    exam = small()
    scene = Pictures(exam).scene(("v8", exam.sets["v8"].scenes[0]))
    model = engine()
    found = predict(model, scene)
    assert list(found.points) == ["depth", "head"] and found.depth.shape == (3, 28, 42)
    for kind, points in found.points.items():
        sink = Collector()
        Engine(model.model, replace(CPU, points_from=kind)).run(
            Views.from_tensor(scene.images), sink
        )
        expected = torch.stack([sink.views[n].points for n in range(3)])
        torch.testing.assert_close(points, expected, atol=1e-5, rtol=1e-5)
    assert list(predict(model, scene, "none").points) == []


def test_two_sweeps_unless_told() -> None:
    for choice in (ModelChoice(preset="tiny"), ModelChoice(preset="tiny", attention="softmax")):
        specs = open_examined(choice).model.specs
        assert all(dict(spec.options).get("sweeps", "auto") == "auto" for spec in specs)
    told = ModelChoice(preset="tiny", attention_options={"sweeps": 1})
    assert dict(open_examined(told).model.specs[0].options)["sweeps"] == 1


def row(scene: int, auc: float, cd: float = 0.1) -> Row:
    return Row("v8", scene, {"auc@30": auc, "cd": cd}, {"auc@30": 1.0}, 0.0)


def record(rows: list[Row], **about: object) -> Record:
    return Record(
        {"exam": "e", "canonical": True, **about}, rows={(r.set, r.scene): r for r in rows}
    )


def test_runs_are_compared_scene_by_scene() -> None:
    hardness = torch.linspace(5, 95, 40).tolist()
    better = record([row(n, h + 1 + 0.1 * (n % 3)) for n, h in enumerate(hardness)])
    worse = record([row(n, h) for n, h in reversed([*enumerate(hardness)])][:30])
    auc, cd = compare(better, worse)
    assert (auc.score, auc.difference.count) == ("auc@30", 30)
    assert auc.difference.mean == pytest.approx(1.1, abs=0.02) and auc.difference.excludes_zero
    assert auc.ours - auc.theirs == pytest.approx(auc.difference.mean)
    assert cd.difference.mean == 0 and not cd.difference.excludes_zero
    (back, _) = compare(worse, better)
    assert back.difference.mean == pytest.approx(-auc.difference.mean)


def test_scenes_without_a_cloud_are_left_out_of_both_means() -> None:
    one = record([row(0, 1, math.nan), row(1, 1, 2.0)])
    two = record([row(0, 1, 9.0), row(1, 1, 1.0)])
    _, cd = compare(one, two)
    assert (cd.ours, cd.theirs, cd.difference.count) == (2, 1, 1)


def test_runs_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="one exam"):
        compare(record([row(0, 1)]), record([row(0, 1)], exam="another"))
    with pytest.raises(DataError, match="one canonical"):
        compare(record([row(0, 1)]), record([row(0, 1)], canonical=False))
    with pytest.raises(DataError, match="one unit, got m and mm"):
        compare(record([row(0, 1)]), record([row(0, 1)], unit="mm"))
    both, head = (record([row(0, 1)], points=points) for points in ("both", "head"))
    with pytest.raises(DataError, match=r"source of points .* got depth and camera and point"):
        compare(both, head)
    compare(both, record([row(0, 1)], points="none"))
    with pytest.raises(DataError, match="share a scene"):
        compare(record([row(0, 1)]), record([row(1, 1)]))


def test_what_runs_do_not_share_is_said() -> None:
    one, two = (record([], data=f"/{name}", long_side=168) for name in "ab")
    assert unlike(one, two) == ["the runs differ in data: /a and /b"]
    assert unlike(one, one) == []
