"""``vggt3 fit --data sevenscenes``: the paper's own training path, at golden size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.data.layouts import drawn, write_sevenscenes
from vggt3 import cli
from vggt3.model.weight_files import read_header


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seven")
    write_sevenscenes(folder, drawn(views=5))
    (folder / "chess/seq-03").rename(folder / "chess/seq-01")
    write_sevenscenes(folder, drawn(views=4))
    return folder


def fit(root: Path, output: Path, *words: str) -> int:
    fixed = ["--data.views", "3", "--data.size", "[42,56]", "--data.scenes", "1"]
    fixed += ["--data.val_batches", "1", "--report_every", "1", "--debug"]
    fixed += ["--data.cache", str(root.parent / "cache"), "--output", str(output)]
    return cli.main(["fit", *fixed, *words])


def test_golden_weights_learn_from_a_miniature(
    root: Path, golden_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = golden_dir / "vggt.weights.safetensors"
    if not checkpoint.is_file():
        pytest.skip(f"no {checkpoint}")
    weights = tmp_path / "weights"
    words = ["weights", "import", str(checkpoint), "--camera-heads", "4", "-o", str(weights)]
    assert cli.main(words) == 0
    backbone = str(weights / "imported.safetensors")
    out = tmp_path / "fit"
    asked = ["--weights", backbone, "--attention", "ttt_shortconv", "--data", "sevenscenes"]
    asked += ["--data.root", str(root), "--trainer.max_steps", "25", "--optimizer.lr", "2e-3"]
    assert fit(root, out, *asked) == 0
    header = read_header(out / "adapter.safetensors")
    assert {layer.spec.name for layer in header.layers} == {"ttt_shortconv"}
    log = (out / "log.txt").read_text()
    losses = [float(x) for x in re.findall(r"step \d+ .* loss ([\d.]+)", log)]
    assert len(losses) == 25 and sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert "validation at step 25" in log
    capsys.readouterr()
    assert cli.main(["evaluate", "7scenes-dense", "--data", str(root), "--weights", backbone,
                     "--adapter", str(out / "adapter.safetensors"), "--device", "cpu",
                     "--long-side", "56"]) == 0  # fmt: skip
    assert "CD m" in capsys.readouterr().out


def test_a_mixture_as_typed(root: Path, tmp_path: Path) -> None:
    asked = ["--preset", "tiny", "--data", "sevenscenes:1,procedural:2", "--data.root", str(root)]
    assert fit(root, tmp_path / "fit", *asked, "--trainer.max_steps", "4") == 0
    config = (tmp_path / "fit/logs/version_0/config.yaml").read_text()
    assert "sets: sevenscenes:1,procedural:2" in config
    # Goes on with the same settings, and says so where the data are others.
    again = ["--config", str(tmp_path / "fit/logs/version_0/config.yaml")]
    again += ["--ckpt_path", str(tmp_path / "fit/last.ckpt"), "--trainer.max_steps", "5"]
    assert fit(root, tmp_path / "fit", *again) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "sevenscene"], "did you mean 'sevenscenes'"),
        (["--data", "sevenscenes"], "--data.root must name a folder for each of: sevenscenes"),
        (["--data", "dtu", "--data.root", "ROOT"], "looks like 7-Scenes (sevenscenes)"),
        (["--data", "sevenscenes", "--data.root", "ROOT", "--data.views", "9"], "9 views that see"),
        (
            [
                "--data",
                "sevenscenes",
                "--data.root",
                "ROOT",
                "--data.views",
                "2",
                "--data.val_recipe",
                "5@28x28*1",
            ],
            "to hold out with 5 views",
        ),
        (
            ["--data", "sevenscenes", "--data.root", "ROOT", "--loss.sky", "0.1"],
            "--loss.sky must be 0 where data sets are read",
        ),
        (["--data.covisibility", "1"], "--data.covisibility must be at least 0 and below 1"),
    ],
)
def test_bad_input_gets_one_line(
    words: list[str], message: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(root) if word == "ROOT" else word for word in words]
    command = ["fit", "--preset", "tiny", "-o", str(tmp_path / "fit"), *named]
    assert cli.main([*command, "--data.cache", str(root.parent / "cache")]) in (1, 2)
    told = capsys.readouterr().err.strip()
    assert message in told and told.count("\n") == 0, told
    assert not (tmp_path / "fit").exists()
