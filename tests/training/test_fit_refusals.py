"""What ``vggt3 fit`` refuses: one line on stderr that names the thing, and an exit code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.fits import TINY, fit
from vggt3.training import keeping

ONE = ["--trainer.max_steps", "1"]

pytestmark = pytest.mark.usefixtures("cheap")


def told(capsys: pytest.CaptureFixture[str], output: Path, *words: str, code: int = 2) -> str:
    capsys.readouterr()
    assert fit(output, *words, debug=False) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--trainer.max_step", "1"], "did you mean '--trainer.max_steps'?"),
        (["--atention", "linear"], "did you mean '--attention'?"),
        (["--attention", "linaer"], "did you mean 'linear'?"),
        (["--attention.sweps", "2"], "did you mean 'sweeps'?"),
        (["--trainer.max_steps", "few"], "--trainer.max_steps must be"),
        (["--data.size", "5"], "--data.size must be a list in brackets, such as [1,2], got '5'"),
        (["--data.recipes", "x"], "--data.recipes must look like"),
        (["--data.samples", "3"], "--data.samples must be 1 or 4, got 3"),
        (["--learning.train", "none"], "--learning.train must be one of"),
        (["--data.views", "1"], "--data.views must be at least 2"),
        (["--optimizer.lr", "-1"], "--optimizer.lr must be positive, got -1"),
        (["--trainer.accelerator", "abacus"], "--trainer must have settings that fit"),
        (["--config", "nowhere.yaml"], "no such file"),
        (["--ckpt_path", "nowhere.ckpt", "--attention", "linear"], "must be a file"),
        (["stray"], "stray"),
        (["--ckpt_path", ""], "--ckpt_path must be something, got ''"),
        (["--optimizer.method", "moon"], "did you mean 'muon'?"),
        (["--share-views", "2"], "--share-views must be -1 or divide the number of processes, 1"),
        (["--share-views", "0"], "--share-views must be -1 or divide"),
        (["--trainer.max_steps", "0"], "--trainer.max_steps must be above 0, or -1 for no end"),
        (["--trainer.gradient_clip_val", "1"], "must be left out: --optimizer.clip is the longest"),
        (["--trainer.gradient_clip_algorithm", "value"], "must be left out: norms are clipped"),
        (["--train-all", "--learning.train", "encoder"], "stand without --learning.train encoder"),
        (["--optimizer.lr_encoder", "0.5"], "must stand beside --learning.train encoder, got 0.5"),
        (["--tensorboard", "--trainer.logger", "false"], "must stand without --trainer.logger"),
        (["--learning.dense_every", "0"], "--learning.dense_every must be at least 1, got 0"),
        (["--optimizer.betas", "[0.9,1.5]"], "--optimizer.betas must be at least 0 and below 1"),
        (["--optimizer.weight_decay", "-1"], "--optimizer.weight_decay must be at least 0, got -1"),
        (["--loss.camera=-5"], "--loss.camera must be at least 0, and finite, got -5"),
        (["--loss.dropped", "1"], "--loss.dropped must be below 1, got 1"),
        (["--data.recipes", "2@56x56*1:1.2.3"], "--data.recipes must look like"),
        (["--data.val_recipe", "2@55x56*1"], "--data.val_recipe must have views"),
        (["--data.val_recipe", "1@56x56*1"], "--data.val_recipe must have at least 2 views"),
        (["--data.seed", "0"], "--data.seed must differ from --data.val_seed, 0, got 0"),
    ],
)
def test_a_wrong_word(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], line: str
) -> None:
    code = 1 if "nowhere.ckpt" in words else 2
    assert line in told(capsys, tmp_path / "out", *TINY, *words, code=code)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"data": 5}, "must hold settings for data, got 5"),
        ({"optimizer": {"lrr": 1}}, "'optimizer.lrr' (did you mean 'optimizer.lr'?)"),
        ({"optimiser": {"lr": 1}}, "(did you mean 'optimizer"),
        ({"trainer": {"max_steps": 1, "max_epoch": 2}}, "(did you mean 'trainer.max_epochs'?)"),
        ({"attention": "linear", "seeed": 1}, "(did you mean 'seed'?)"),
        (["a", "list"], "must hold settings, got list"),
    ],
)
def test_a_wrong_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: Any, line: str
) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(yaml.safe_dump(content))
    assert line in told(capsys, tmp_path, *TINY, "--config", str(file))


def test_what_was_fitted_is_not_lost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [*TINY, "--attention", "linear", *ONE]
    assert fit(tmp_path, *words) == 0
    assert "--overwrite starts over" in told(capsys, tmp_path, *words)
    assert fit(tmp_path, *words, "--overwrite") == 0


def test_a_checkpoint_of_something_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert fit(tmp_path, *TINY, "--attention", "linear", *ONE) == 0
    path = tmp_path / "last.ckpt"
    resume = ["--ckpt_path", str(path), "--trainer.max_steps", "2"]
    line = told(capsys, tmp_path, *TINY, *resume, "--attention", "ttt_shortconv")
    assert "must be of ttt_shortconv, as --attention says, got one of linear" in line
    line = told(capsys, tmp_path, *TINY, *resume, "--seed", "1", code=1)
    assert "belong to this backbone" in line
    line = told(capsys, tmp_path, *TINY, *resume, "--train-all")
    assert "have learned all, got adapter" in line
    line = told(capsys, tmp_path, *TINY, *resume, "--optimizer.method", "muon")
    assert "have moved by muon, as --optimizer.method says, got adamw" in line
    capsys.readouterr()
    assert fit(tmp_path, *TINY, *resume, "--data.seed", "9") == 0
    assert "note: the checkpoint saw seed 1" in capsys.readouterr().err


def test_what_is_damaged_is_said_in_a_readers_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "cut.ckpt"
    for content in (b"PK\x03\x04 cut short", b"hello"):
        path.write_bytes(content)
        line = told(capsys, tmp_path, *TINY, "--ckpt_path", str(path), code=1)
        assert "must be a checkpoint" in line and "damaged" in line
        assert "miniz" not in line and "Reader" not in line


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_names_things_to_import(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, mark = tmp_path / "bad.ckpt", tmp_path / "mark"
    words = [*TINY, "--attention", "linear", "--ckpt_path", str(path), *ONE]
    torch.save({"state_dict": {}, "vggt3": Evil(mark)}, path)
    assert "names things to import" in told(capsys, tmp_path, *words, code=1)
    named = {"_class_path": "os.mkdir", "path": str(mark)}
    for hyperparameters in (named, {"class_path": "os.mkdir"}):
        torch.save({"state_dict": {}, "hyper_parameters": hyperparameters}, path)
        assert "name os.mkdir" in told(capsys, tmp_path, *words, code=1)
    torch.save({"state_dict": {}}, path)
    assert "that vggt3 fit wrote" in told(capsys, tmp_path, *words, code=1)
    path.write_bytes(pickle.dumps({"a": 1})[:-3])
    assert "--ckpt_path" in told(capsys, tmp_path, *words, code=1)
    assert not mark.exists()


def test_a_checkpoint_with_other_tensors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*TINY, "--attention", "linear", *ONE]
    assert fit(tmp_path, *words) == 0
    path = tmp_path / "last.ckpt"
    stored = torch.load(path, weights_only=True)
    stored["state_dict"].popitem()
    torch.save(stored, path)
    line = told(capsys, tmp_path, *words, "--ckpt_path", str(path), code=1)
    assert "a difference in 1, such as model.aggregator" in line


def test_a_full_disk_leaves_the_old_checkpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TINY, "--attention", "linear"]
    assert fit(tmp_path, *words, *ONE) == 0
    path = tmp_path / "last.ckpt"
    before = path.read_bytes()

    def full(trainer: Any, draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping.Trainer, "save_checkpoint", full)
    more = ["--trainer.max_steps", "3", "--ckpt_path", str(path), "--save_every", "1"]
    line = told(capsys, tmp_path, *words, *more, code=1)
    assert "No space left on device; the earlier one is kept" in line
    assert path.read_bytes() == before
    assert [f.name for f in tmp_path.glob(".*.ckpt")] == []


def test_a_trained_file_is_not_written_over(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where its checkpoint has been removed to save room."""
    own = tmp_path / "backbone.linear.safetensors"
    own.write_text("mine")
    line = told(capsys, tmp_path, *TINY, *ONE, "--attention", "linear")
    assert line.endswith("(--overwrite starts over), got backbone.linear.safetensors")
    assert own.read_text() == "mine"


def test_predictions_of_two_runs_are_not_mixed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stale = tmp_path / "predictions" / "batch-0007.safetensors"
    stale.parent.mkdir()
    stale.write_text("earlier")
    words = [*TINY, "--attention", "linear"]
    capsys.readouterr()
    assert fit(tmp_path, *words, command="predict", debug=False) == 2
    assert "--overwrite replaces them), got 1, such as batch-0007" in capsys.readouterr().err
    assert fit(tmp_path, *words, "--overwrite", command="predict") == 0
    assert not stale.exists() and (stale.parent / "batch-0000.safetensors").is_file()
    (stale.parent / "notes.txt").write_text("mine")
    assert fit(tmp_path, *words, "--overwrite", command="predict", debug=False) == 2
