"""An ablation's file: what it says, and what is said of a wrong one before anything runs."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.training.ablation.toy import EXAM, ROWS, TRAINING, toy, work
from vggt3.checks import UsageError
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model, start_model
from vggt3.model.weights_saving import save_adapter
from vggt3.training.ablation import settings
from vggt3.training.ablation.options import Leg

CONTENT = {"rows": ROWS, "training": TRAINING, "exam": EXAM}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """The settings with one value changed."""
    content: dict[str, Any] = copy.deepcopy(CONTENT)
    place: Any = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return content


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("trainig",), {}, "setting of an ablation, got 'trainig'"),
        (("training", "data", "vews"), 2, "did you mean 'training.data.views'"),
        (("training", "steps"), "many", "training.steps must be"),
        (("training", "steps"), -1, "training.steps or training.seconds must be above 0"),
        (("training", "learning"), {"train": "all"}, "training.learning.train must be adapter"),
        (("rows",), [], "rows must hold a row"),
        (("rows",), {"a": 1}, "must be a list"),
        (("rows", 0, "optoins"), {}, r"row 1 .* got 'optoins' \(did you mean 'options'"),
        (("rows", 1, "name"), "softmax", "names must differ"),
        (("rows", 0, "attention"), None, "row 1 .* must have a attention"),
        (("rows", 0, "start"), "there", "start of row 'softmax' must be one of scratch, softmax"),
        (("rows", 0, "paper"), {"auc": 3.0}, "did you mean 'auc@30'"),
        (("against",), "linear", "against must be one of from scratch, softmax"),
        (("exam", "scenes"), {}, "exam.scenes must name a set"),
        (("exam", "scenes"), {"v8": 0}, "exam.scenes.v8 must be at least 1"),
    ],
)
def test_a_wrong_file(path: tuple[str | int, ...], value: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        settings.parse(changed(*path, to=value))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        settings.read(tmp_path / "x.yaml")
    bad = tmp_path / "bad.yaml"
    for text, told in (("a: [", "be a YAML file"), ("- 1", "hold settings, got list")):
        bad.write_text(text)
        with pytest.raises(UsageError, match=told):
            settings.read(bad)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"attention": "ttt"}, "row 'x': --attention must be one of"),
        ({"attention": "ttt_mlp", "options": {"hiden": 2}}, r"row 'x': .* mean 'hidden'"),
        ({"attention": "ttt_mlp", "options": {"hidden": 0}}, "row 'x': --attention.hidden must"),
        ({"attention": "ttt_mlp", "inference": {"hidden": 2}}, "inference of row 'x' must leave"),
        ({"attention": "ttt_mlp", "inference": {"sweeps": 0}}, "row 'x': --attention.sweeps must"),
    ],
)
def test_a_row_that_cannot_be_is_found_before_any_is_trained(
    backbone: Path, tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        work(toy(backbone, [*ROWS, {"name": "x", **row}]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_row_without_an_adapter_to_begin_from(backbone: Path, tmp_path: Path) -> None:
    shutil.copy(backbone, tmp_path / "toy.safetensors")
    with pytest.raises(UsageError, match="the adapter of a row must name an adapter"):
        work(toy(tmp_path / "toy.safetensors"), tmp_path / "out")
    rows = [{"name": "a", "attention": "ttt_mlp", "train": False}]
    with pytest.raises(UsageError, match="vggt3 fit --attention ttt_mlp makes one"):
        work(toy(backbone, rows, against="a"), tmp_path / "out")


def test_another_softmax_adapter_makes_other_rows(backbone: Path, tmp_path: Path) -> None:
    """Though the backbone is the same: training begins from it, or it is what is scored."""
    rows = [*ROWS, {"name": "shipped", "attention": "softmax", "train": False}]
    for name in ("toy.safetensors", "toy.softmax.safetensors"):
        shutil.copy(backbone.parent / name, tmp_path)
    ablation = toy(tmp_path / "toy.safetensors", rows)
    before = work(ablation, tmp_path / "out").keys
    model = open_model(ModelChoice(str(tmp_path / "toy.safetensors"), attention="softmax")).model
    with torch.no_grad():
        model.aggregator.block(1).attn.proj.bias.add_(1.0)
    save_adapter(tmp_path / "toy.softmax.safetensors", model)
    after = work(ablation, tmp_path / "out").keys
    assert before.backbone.fingerprint == after.backbone.fingerprint
    assert all(before.row(row) != after.row(row) for row in ablation.rows)


def test_an_adapter_that_ships_is_what_it_was_made_as(backbone: Path, tmp_path: Path) -> None:
    """Whatever the defaults are: options that a row leaves out are those of the file."""
    for name in ("toy.safetensors", "toy.softmax.safetensors"):
        shutil.copy(backbone.parent / name, tmp_path)
    options = {"initial": "learned", "hidden": 2}
    choice = ModelChoice(str(backbone), attention="ttt_mlp", attention_options=options)
    save_adapter(tmp_path / "toy.ttt_mlp.safetensors", start_model(choice).model)
    given: list[dict[str, Any]] = [
        {},
        {"options": {"initial": "learned"}},
        {"inference": {"sweeps": 2}},
        {"inference": {"sweeps": 3}},
    ]
    rows = [
        {"name": f"{n}", "attention": "ttt_mlp", "train": False, **one}
        for n, one in enumerate(given)
    ]
    ablation = toy(tmp_path / "toy.safetensors", rows, against="0")
    keys = [work(ablation, tmp_path / "out").keys.row(row) for row in ablation.rows]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    for option, value in (("initial", "fixed"), ("hidden", 8)):
        rows[1]["options"] = {option: value}
        told = f"row '1': --attention.{option} must be what toy.ttt_mlp.safetensors was made with"
        with pytest.raises(UsageError, match=told):
            work(toy(tmp_path / "toy.safetensors", rows, against="0"), tmp_path / "out")


def test_an_unknown_set(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="v9"):
        work(toy(backbone, exam={"scenes": {"v9": 2}}), tmp_path / "out")


@pytest.mark.parametrize("row", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_share_that_is_none(row: str) -> None:
    with pytest.raises(UsageError, match="--row must"):
        Leg(row=row)


def test_shares_are_all_and_no_training_twice(backbone: Path, tmp_path: Path) -> None:
    rows = [
        *ROWS,
        *({"name": f"{n}", "attention": "ttt_mlp", "options": {"seed": n}} for n in range(5)),
    ]
    for of in (1, 2, 3, 10):
        shares = [
            unit.fit.key
            for n in range(1, of + 1)
            for unit in work(toy(backbone, rows), tmp_path, leg=Leg(row=f"{n}/{of}")).mine
        ]
        assert len(shares) == len(set(shares)) == 7


def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ablation.md").read_text("utf-8")
    (tmp_path / "page.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    ablation = settings.read(tmp_path / "page.yaml")
    assert len(work(ablation, tmp_path / "out").units) == len(ablation.rows) == 5


def test_the_papers_ablation(tmp_path: Path) -> None:
    """The file that ships: every row can be, and each adapter is small enough to be carried."""
    ablation = settings.read(ROOT / "experiments" / "ablation.yaml")
    whole = work(ablation, tmp_path / "out")
    assert len(whole.units) == 27 and len(ablation.rows) == 30
    assert ablation.exam.scenes == {"v8": 64, "v24": 64, "v100": 16, "v300": 8}
    base = "learned start: ttt_shortconv"
    shared = next(unit for unit in whole.units if unit.fit.row.name == base)
    assert [row.name for _, row in shared.rows] == [base, "1 sweep", "3 sweeps", "4 sweeps"]
    assert {row.name: row.paper["auc@30"] for row in ablation.rows if row.paper} == {
        "softmax": 76.33,
        "ttt_mlp from scratch": 52.95,
        "ttt_mlp": 72.16,
        "ttt_shortconv": 74.14,
    }
