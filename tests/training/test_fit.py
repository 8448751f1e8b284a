"""``vggt3 fit`` from backbone to adapter, and the adapter in use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.training.fits import SMALL_SCENES, TINY, fit
from vggt3 import cli
from vggt3.attention import registry
from vggt3.model.choice import ModelChoice
from vggt3.model.names import is_adapter
from vggt3.model.opening import start_model
from vggt3.model.weight_files import read_header
from vggt3.model.weights import load_model

STEPS = ["--trainer.max_steps", "2"]


@pytest.fixture
def backbone(tmp_path: Path, cheap: None) -> Path:
    """A backbone and its softmax adapter, as ``--train-all`` makes them."""
    assert fit(tmp_path / "all", *TINY, "--train-all", *STEPS) == 0
    return tmp_path / "all"


def test_from_backbone_to_adapter_to_scene(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {f.name for f in backbone.glob("*.safetensors")} == {
        "backbone.safetensors",
        "backbone.softmax.safetensors",
    }
    before = load_file(backbone / "backbone.safetensors")
    out = tmp_path / "ttt"
    words = ["--weights", str(backbone), "--attention", "ttt_shortconv", "--attention.sweeps", "2"]
    capsys.readouterr()
    assert fit(out, *words, *STEPS) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "ahead: 2 steps of" in printed[1], "the time is told first"
    assert printed[-1].startswith("use it: vggt3 reconstruct")
    header = read_header(out / "adapter.safetensors")
    assert {layer.spec.name for layer in header.layers} == {"ttt_shortconv"}
    assert dict(header.layers[0].spec.options)["sweeps"] == 2
    assert header.record["steps"] == 2
    checkpoint = torch.load(out / "last.ckpt", weights_only=True)["state_dict"]
    assert all(is_adapter(name.removeprefix("model.")) for name in checkpoint)
    after = load_model(backbone / "backbone.safetensors", out / "adapter.safetensors")
    for name, tensor in after.state_dict().items():
        if name in before:
            assert torch.equal(tensor, before[name].float()), name
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(2):
        ramp = torch.linspace(0, 255, 70 * 98).reshape(70, 98).roll(9 * n, dims=1)
        Image.fromarray(ramp.byte().numpy()).save(photos / f"{n}.png")
    use = printed[-1].removeprefix("use it: vggt3 ").split()
    use = [str(photos) if word == "PHOTOS" else word for word in use]
    use = [str(tmp_path / "scene") if word == "OUT" else word for word in use]
    assert cli.main(use) == 0
    assert (tmp_path / "scene" / "cameras.json").is_file()


def test_a_fit_begins_at_softmax(backbone: Path) -> None:
    stored = load_file(backbone / "backbone.softmax.safetensors")
    choice = ModelChoice(weights=str(backbone), attention="ttt_mlp")
    model = start_model(choice).model.state_dict()
    for name, tensor in stored.items():
        if name.split(".")[-2] in ("qkv", "proj"):
            assert torch.equal(model[name], tensor.float()), name


def test_auto_sweeps_are_one_in_training(backbone: Path, tmp_path: Path) -> None:
    words = ["--weights", str(backbone), "--attention", "ttt_shortconv", *STEPS]
    for name in ("auto", "1", "2"):
        assert fit(tmp_path / name, *words, "--attention.sweeps", name) == 0
    auto, one, two = (load_file(tmp_path / n / "adapter.safetensors") for n in ("auto", "1", "2"))
    assert all(torch.equal(auto[name], one[name]) for name in one)
    assert any(not torch.equal(auto[name], two[name]) for name in two)


def test_validate_test_and_predict(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--weights", str(backbone), "--attention", "softmax"]
    for command in ("validate", "test"):
        capsys.readouterr()
        assert fit(tmp_path / command, *words, command=command) == 0
        assert "auc@30" in capsys.readouterr().out
    assert fit(tmp_path / "predict", *words, command="predict") == 0
    found = load_file(tmp_path / "predict" / "predictions" / "batch-0000.safetensors")
    assert found["depth"].shape == found["true_depth"].shape == (1, 3, 28, 28)
    checkpoint = ["--ckpt_path", str(backbone / "last.ckpt")]
    wrong = ["--weights", str(backbone), *checkpoint]
    assert fit(tmp_path / "x", *wrong, command="validate") == 2, "it has learned more"
    capsys.readouterr()
    assert fit(tmp_path / "y", *TINY, *checkpoint, "--train-all", command="validate") == 0
    assert "auc@30" in capsys.readouterr().out


def test_a_score_leaves_nothing_where_nobody_asked_for_it(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    words = ["--weights", str(backbone), "--attention", "softmax", *SMALL_SCENES]
    assert cli.main(["validate", *words]) == 0
    assert not list(here.iterdir())


def test_settings_come_back_from_a_file(
    tmp_path: Path, cheap: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "first"
    words = [*TINY, "--attention", "linear", "--optimizer.lr", "3e-3", "--trainer.max_steps", "1"]
    assert fit(out, *words, "--print_config") == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["attention"] == "linear" and settings["optimizer"]["lr"] == 3e-3
    assert fit(out, *words) == 0
    saved = out / "logs" / "version_0" / "config.yaml"
    again = ["fit", "--config", str(saved), "--output", str(tmp_path / "second")]
    assert cli.main(again) == 0
    one, other = (
        load_file(folder / "backbone.linear.safetensors") for folder in (out, tmp_path / "second")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "train/loss" in (out / "logs" / "version_0" / "metrics.csv").read_text()


def test_a_schedule_is_fitted(tmp_path: Path, cheap: None) -> None:
    schedule = ["--attention.schedule", "0-1:softmax,2-3:linear"]
    assert fit(tmp_path, *TINY, *schedule, "--trainer.max_steps", "1") == 0
    header = read_header(tmp_path / "backbone.softmax+linear.safetensors")
    assert [layer.spec.name for layer in header.layers] == ["softmax"] * 2 + ["linear"] * 2


def test_rendered_scenes_are_fitted(tmp_path: Path) -> None:
    words = ["--trainer.max_steps", "1", "--data.views", "2", "--data.size", "[20,28]"]
    assert fit(tmp_path, *TINY, *words) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "rounded to (14, 28)" in log and "step 1 " in log


def every_command(backbone: Path, folder: Path, chosen: list[str]) -> None:
    """Fit, go on, validate, test, predict and reconstruct, each with what the first one made."""
    weights = ["--weights", str(backbone)]
    assert fit(folder, *weights, *chosen, "--trainer.max_steps", "1") == 0
    last = ["--ckpt_path", str(folder / "last.ckpt")]
    assert fit(folder, *weights, *last, "--trainer.max_steps", "2") == 0
    adapter = ["--adapter", str(folder / "adapter.safetensors")]
    for command in ("validate", "test", "predict"):
        assert fit(folder / command, *weights, *adapter, command=command) == 0
    photos = folder / "photos"
    photos.mkdir()
    for n in range(2):
        ramp = torch.linspace(0, 255, 70 * 98).reshape(70, 98).roll(9 * n, dims=1)
        Image.fromarray(ramp.byte().numpy()).save(photos / f"{n}.png")
    words = ["reconstruct", str(photos), "-o", str(folder / "scene"), *weights, *adapter]
    assert cli.main(words) == 0
    assert (folder / "scene" / "cameras.json").is_file()


def test_a_schedule_goes_all_the_way(backbone: Path, tmp_path: Path) -> None:
    schedule = ["--attention.schedule", "0-1:softmax,2-3:ttt_shortconv"]
    every_command(backbone, tmp_path / "fit", schedule)
    header = read_header(tmp_path / "fit" / "adapter.safetensors")
    names = [layer.spec.name for layer in header.layers]
    assert names == ["softmax"] * 2 + ["ttt_shortconv"] * 2


def test_a_stranger_s_backend_goes_all_the_way(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tutorial's plug-in, found by the entry point of an installed package."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "tests" / "plugins" / "vggt3_gated_linear", site)
    info = site / "vggt3_gated_linear-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vggt3-gated-linear\nVersion: 0.1\n"
    )
    point = "[vggt3.attention]\ngated_linear = vggt3_gated_linear:GatedLinear\n"
    (info / "entry_points.txt").write_text(point)
    monkeypatch.syspath_prepend(str(site))
    registry.table.cache_clear()
    chosen = ["--attention", "gated_linear", "--attention.opening", "2"]
    try:
        every_command(backbone, tmp_path / "fit", chosen)
    finally:
        registry.table.cache_clear()
    header = read_header(tmp_path / "fit" / "adapter.safetensors")
    assert dict(header.layers[0].spec.options)["opening"] == 2
