"""An ablation from beginning to end: stopped anywhere, gone on with, by one process or several."""

from __future__ import annotations

import gc
import multiprocessing
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.ablation.counting import Counted
from tests.training.ablation.toy import EXAM, ROWS, TRAINING, toy, work
from tests.training.fits import painted
from vggt3 import cli
from vggt3.checks import UsageError
from vggt3.evaluation.record import read_record
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.model.weight_files import read_header
from vggt3.training.ablation import report, table
from vggt3.training.ablation import work as working
from vggt3.training.ablation.options import Leg
from vggt3.training.ablation.settings import Ablation, RowSettings
from vggt3.training.ablation.work import Work
from vggt3.training.module import Training
from vggt3.training.rendering import Renderer

pytestmark = pytest.mark.usefixtures("cheap")


@pytest.fixture(scope="module")
def whole(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Renderer, "__call__", painted)
        assert work(toy(backbone), folder).do()
    return folder


def scores(done: Work) -> dict[str, Any]:
    """Every score of every row; nan equals nan in words."""
    return {
        f"{line.row.name} {line.set} {scene}": str(found)
        for line in table.lines(done)
        for scene, found in line.by_scene.items()
    }


def test_two_rows_from_beginning_to_end(backbone: Path, tmp_path: Path, counted: Counted) -> None:
    """With clouds and times; stopped in the middle and gone on with."""
    ablation = toy(backbone, exam={"scenes": {"v8": 2}, "repeat": 1})
    counted.last = 3
    with pytest.raises(KeyboardInterrupt):
        work(ablation, tmp_path / "out").do()
    counted.last = None
    done = work(ablation, tmp_path / "out")
    assert done.do() and all(done.done(unit) for unit in done.units)
    assert (counted.trainings, counted.scenes) == (2, 4), "nothing is computed twice"
    found = table.lines(done)
    assert [line.row.name for line in found] == ["softmax", "from scratch"]
    for line in found:
        assert len(line.by_scene) == 2 and line.views == 3
        assert all(line.scores[score].count == 2 for score in ("auc@30", "cd", "nc", "absrel"))
        assert line.ms_a_view is not None and line.ms_a_view > 0
        assert line.facts["steps"] == 2 and line.facts["scenes"] == 2
        assert "step 2" in line.facts["log"]
    softmax, other = found
    assert softmax.parameters == 4 * (4 * 64 * 64 + 4 * 64 + 4 * 32)  # qkv, proj, two norms
    assert not softmax.differences and other.differences["cd"].count == 2
    one, two = ([scored["absrel"] for scored in line.by_scene.values()] for line in found)
    assert other.differences["absrel"].mean == pytest.approx(sum(two) / 2 - sum(one) / 2)
    left = [path.name for path in (tmp_path / "out").rglob("*")]
    assert not [n for n in left if n.endswith(".safetensors")], "complete rows need no weights"
    assert not [n for n in left if n.startswith(".")], "nothing half-made is left"


@pytest.mark.parametrize(("start", "teacher"), [("softmax", 0), ("scratch", 0), ("softmax", 3)])
def test_training_is_that_of_fit(
    backbone: Path, tmp_path: Path, start: str, teacher: float
) -> None:
    """The same tensors as ``vggt3 fit`` makes with the same settings."""
    rows = [{"name": "a", "attention": "ttt_mlp", "options": {"hidden": 2}, "start": start}]
    training = {**TRAINING, "learning": {"teacher": teacher}}
    ablation = toy(backbone, rows, against="a", training=training)
    done = work(ablation, tmp_path / "out", leg=Leg(keep_adapters=True))
    assert done.do()
    (adapter,) = (tmp_path / "out" / "fits").glob("*.safetensors")
    words = ["--weights", str(backbone), "--attention", "ttt_mlp", "--attention.hidden", "2"]
    words += ["--data.size", "[28,42]", "--data.views", "3", "--data.scenes", "1"]
    words += ["--data.furniture", "[1,2]", "--optimizer.lr", "1e-3", "--optimizer.warmup", "1000"]
    words += ["--start", start, "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    words += ["--learning.teacher", str(teacher)]
    assert cli.main(["fit", "-o", str(tmp_path / "fit"), *words, "--debug"]) == 0
    theirs = read_header(tmp_path / "fit" / "adapter.safetensors")
    ours = read_header(adapter)
    assert ours.content == theirs.content and ours.layers == theirs.layers
    assert ours.record["learned_from"] == theirs.record["scenes"]
    (log,) = (tmp_path / "out" / "fits").glob("*.json")
    assert ("teacher" in log.read_text()) == (teacher > 0)


def test_stopped_in_the_exam_and_resumed(
    backbone: Path, whole: Path, tmp_path: Path, counted: Counted
) -> None:
    counted.last = 1
    with pytest.raises(KeyboardInterrupt):
        work(toy(backbone), tmp_path / "out").do()
    counted.last = None
    again = work(toy(backbone), tmp_path / "out")
    assert again.do()
    assert (counted.trainings, counted.scenes) == (2, 4), "nothing is computed twice"
    assert scores(again) == scores(work(toy(backbone), whole))
    assert work(toy(backbone), tmp_path / "out").do() and counted.scenes == 4


def test_stopped_in_training_and_resumed(
    backbone: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, seen = Training.training_step, []

    def stop(module: Training, batch: Any, batch_idx: int) -> Any:
        seen.append(batch_idx)
        if len(seen) == 4:  # the second row's second step
            raise KeyboardInterrupt
        return step(module, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        work(toy(backbone), tmp_path / "out").do()
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [name for name in left if name.startswith(".")], left
    again = work(toy(backbone), tmp_path / "out")
    assert again.do() and len(seen) == 6
    assert scores(again) == scores(work(toy(backbone), whole))


def test_time_ends_it_and_the_next_leg_goes_on(
    backbone: Path, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in (1, 2, 3):
        monkeypatch.setattr(Work, "_left", lambda self, seconds, n=most: counted.scenes < n)
        assert not work(toy(backbone), tmp_path / "out", leg=Leg(minutes=1)).do()
        assert counted.scenes == most, "the scene that was begun is kept"
    assert counted.trainings == 2


def test_what_is_not_there_yet_is_said_in_a_line(backbone: Path, tmp_path: Path) -> None:
    ablation = toy(backbone)
    assert work(ablation, tmp_path / "out", leg=Leg(row="1/2")).do()
    told = report.write(work(ablation, tmp_path / "out"))
    assert told.endswith("- nothing yet of from scratch") and told.count("from scratch") == 1
    assert work(ablation, tmp_path / "out", leg=Leg(row="2/2")).do()
    assert "nothing yet" not in report.write(work(ablation, tmp_path / "out"))


def test_no_training_is_begun_that_would_not_end(backbone: Path, tmp_path: Path) -> None:
    slow = toy(backbone, training={**TRAINING, "seconds": 90.0})
    leg = work(slow, tmp_path / "out", leg=Leg(minutes=1))
    assert not leg.do() and not list((tmp_path / "out" / "fits").iterdir())


def test_rows_on_sweeps_change_inference_only(
    backbone: Path, tmp_path: Path, counted: Counted
) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "ttt", "attention": "ttt_mlp"},
        {"name": "one", "attention": "ttt_mlp", "inference": {"sweeps": 1}},
        {"name": "the same", "attention": "ttt_mlp", "inference": {"sweeps": 2}},
        {"name": "spelled out", "attention": "ttt_mlp", "options": {"hidden": 4}},
    ]
    done = work(toy(backbone, rows, against="ttt"), tmp_path / "out")
    assert done.do() and (counted.trainings, counted.scenes) == (1, 4)
    ttt, one, same, spelled = table.lines(done)
    assert ttt.by_scene != one.by_scene
    assert ttt.by_scene == same.by_scene == spelled.by_scene
    files = (tmp_path / "out" / "scores").glob("*.json")
    found = {str(read_record(path).about["attention"]) for path in files}
    assert any("'sweeps': 1" in text for text in found) and len(found) == 2
    trained = RowSettings("other", "ttt_mlp", {"sweeps": 1})
    assert trained.examined == {} and done.keys.fit(trained) != done.keys.fit(ttt.row)


def test_an_adapter_as_it_ships(backbone: Path, tmp_path: Path, counted: Counted) -> None:
    rows = [*ROWS[:1], {"name": "shipped", "attention": "softmax", "train": False}]
    done = work(toy(backbone, rows), tmp_path / "out")
    assert done.do() and counted.trainings == 1
    trained, shipped = table.lines(done)
    assert shipped.parameters == 0 and trained.by_scene != shipped.by_scene


def test_a_row_that_fails_does_not_end_the_others(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that stops being finite: the weights from before it are scored, and it is said."""
    terms = Training.terms

    def broken(module: Training, *args: Any) -> Any:
        found = terms(module, *args)
        last = module.global_step == 1 and module.model.specs[0].name == "softmax"
        return {**found, "loss": found["loss"] * (float("nan") if last else 1)}

    monkeypatch.setattr(Training, "terms", broken)
    said: list[str] = []
    done = work(toy(backbone), tmp_path / "out", say=said.append)
    assert done.do() and not done.failed
    softmax, other = table.lines(done)
    assert "finite" in softmax.facts["problem"] and other.facts["problem"] is None
    assert any("finite" in note for note in table.notes([softmax, other], {"v8": 2}))


def test_what_a_row_held_is_let_go_before_memory_is_freed(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []

    def failing(self: Work, *args: Any) -> bool:
        big = torch.nn.Linear(2, 2)
        held.append(weakref.ref(big))
        raise RuntimeError("no room")

    def free(self: Work) -> None:
        gc.collect()
        assert all(there() is None for there in held)

    monkeypatch.setattr(Work, "_do", failing)
    monkeypatch.setattr(Work, "_free", free)
    done = work(toy(backbone), tmp_path / "out")
    assert done.do() and len(done.failed) == len(held) == 2


def test_a_time_that_cannot_be_taken_does_not_end_the_others(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(row: Any, *args: Any) -> dict[str, Any]:
        if row.name == "softmax":
            raise RuntimeError("no graph")
        return {"ms_a_view": {"3": 1.0}, "name": row.name, "device": "a clock"}

    monkeypatch.setattr(working, "timed", timed)
    said: list[str] = []
    done = work(
        toy(backbone, exam={**EXAM, "repeat": 1}),
        tmp_path / "out",
        say=said.append,
        leg=Leg(times="only"),
    )
    assert done.do() and done.failed == ["softmax"]
    assert said == ["  failed: RuntimeError: no graph"]
    assert [done.folder.times(done.keys.time(row)) is not None for row in done.ablation.rows] == [
        False,
        True,
    ]


def run_toy(backbone: Path, folder: Path, ready: Any) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    Renderer.__call__ = painted  # type: ignore[method-assign]
    other = work(toy(backbone), folder)
    ready.wait()
    assert other.do()


def test_two_processes_in_one_folder_lose_nothing(
    backbone: Path, whole: Path, tmp_path: Path
) -> None:
    """Not even where both do the same rows at once."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2, timeout=120)
    process = spawn.Process(target=run_toy, args=(backbone, tmp_path / "out", ready))
    process.start()
    here = work(toy(backbone), tmp_path / "out")
    ready.wait()
    assert here.do()
    process.join(120)
    assert process.exitcode == 0
    done = work(toy(backbone), tmp_path / "out")
    assert all(done.done(unit) for unit in done.units)
    assert scores(done) == scores(work(toy(backbone), whole))


def test_weights_that_another_process_removed(
    backbone: Path, whole: Path, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had completed their rows meanwhile, or else they are trained again."""
    fitted, gone = Work.fitted, []

    def too_late(self: Work, unit: Any) -> Any:
        found = fitted(self, unit)
        if found and found[0].adapter and not gone:
            gone.append(found[0].adapter.unlink())
        return found

    monkeypatch.setattr(Work, "fitted", too_late)
    counted.last = 0
    with pytest.raises(KeyboardInterrupt):
        work(toy(backbone), tmp_path / "out").do()
    counted.last = None
    done = work(toy(backbone), tmp_path / "out")
    assert done.do() and gone and counted.trainings == 3
    assert scores(done) == scores(work(toy(backbone), whole))


def test_folders_are_merged(backbone: Path, whole: Path, tmp_path: Path, counted: Counted) -> None:
    """Two legs of the same beginning, one of which got further with one row."""
    counted.last = 1
    with pytest.raises(KeyboardInterrupt):
        work(toy(backbone), tmp_path / "a").do()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    counted.last = None
    assert work(toy(backbone), tmp_path / "a", leg=Leg(row="1/2")).do()
    assert work(toy(backbone), tmp_path / "b", leg=Leg(row="2/2")).do()
    assert counted.scenes == 4
    merged = work(toy(backbone), tmp_path / "b")
    assert merged.folder.merge(tmp_path / "a") == 2  # the first row's further scores, its figures
    assert merged.folder.merge(tmp_path / "a") == 0
    assert all(merged.done(unit) for unit in merged.units)
    assert scores(merged) == scores(work(toy(backbone), whole))


def test_scores_of_something_else_are_refused(backbone: Path, whole: Path, tmp_path: Path) -> None:
    other = work(toy(backbone, exam={"scenes": {"v8": 2}, "points": "both"}), whole)
    with pytest.raises(UsageError, match=r"be of the same points \(both\).* got none"):
        other.do()
    new = work(other.ablation, tmp_path / "new")
    new.folder.open(new.about)
    with pytest.raises(UsageError, match="be of the same points"):
        new.folder.merge(whole)


def test_a_training_leaves_torch_as_it_was(backbone: Path, tmp_path: Path) -> None:
    """A row that was trained in this process is scored like one that another process trained."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        assert work(toy(backbone, ROWS[:1]), tmp_path / "out").do()
        assert torch.get_float32_matmul_precision() == "medium" and torch.backends.cudnn.benchmark
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]


def test_other_training_is_another_row(backbone: Path, whole: Path) -> None:
    """Results of earlier settings stay, and are not shown for the new ones."""
    longer = work(toy(backbone, training={**TRAINING, "steps": 3}), whole)
    assert not any(longer.done(unit) for unit in longer.units)
    assert all(not line.by_scene for line in table.lines(longer))
    quicker = {**TRAINING, "learning": {"compile": True}, "report_every": 7}
    same = work(toy(backbone, training=quicker), whole)
    assert all(same.done(unit) for unit in same.units)


def test_more_scenes_later(backbone: Path, tmp_path: Path, counted: Counted) -> None:
    first = toy(backbone, ROWS[:1])
    assert work(first, tmp_path / "out", leg=Leg(keep_adapters=True)).do()
    more = toy(backbone, ROWS[:1], exam={**EXAM, "scenes": {"v8": 3, "v24": 1}})
    assert work(more, tmp_path / "out").do()
    assert (counted.trainings, counted.scenes) == (1, 4)


def test_the_backend_of_an_adapter(backbone: Path, tmp_path: Path) -> None:
    """A schedule, options and inference end in the layers that are scored."""
    rows = [
        {
            "name": "both",
            "attention": "ttt_mlp",
            "options": {"schedule": "0-2:ttt_mlp,3:softmax", "hidden": 2},
            "inference": {"sweeps": 3},
        }
    ]
    ablation: Ablation = toy(backbone, rows, against="both")
    done = work(ablation, tmp_path / "out", leg=Leg(keep_adapters=True))
    assert done.do()
    (path,) = (tmp_path / "out" / "scores").glob("*.json")
    lines = read_record(path).about["attention"]
    assert lines == ["0-2: ttt_mlp {'hidden': 2, 'sweeps': 3}", "3-3: softmax {}"]
    (adapter,) = (tmp_path / "out" / "fits").glob("*.safetensors")
    model = open_model(ModelChoice(weights=str(backbone), adapter=str(adapter))).model
    assert dict(model.specs[0].options) == {"hidden": 2}
