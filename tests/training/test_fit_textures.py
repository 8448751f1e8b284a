"""``vggt3 fit --data.textures``: the photos reach the scenes, and a changed folder is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.fits import TINY, fit
from vggt3.data.procedural.materials import Column
from vggt3.data.procedural.scene import SceneBatch, SceneParameters
from vggt3.training.rendering import Renderer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "textures"
    made.mkdir()
    for n in range(2):
        pixels = np.random.default_rng(n).integers(0, 255, (70, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{n}.png")
    (made / "bad.jpg").write_text("")
    return made


def test_photos_are_worn_and_a_changed_folder_is_noticed(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worn: list[torch.Tensor] = []
    real = Renderer.__call__

    def watched(renderer: Renderer, parameters: SceneParameters) -> SceneBatch:
        assert renderer.bank is not None and renderer.bank.count == 2
        worn.append(parameters.materials[..., Column.IMAGE].flatten())
        return real(renderer, parameters)

    monkeypatch.setattr(Renderer, "__call__", watched)
    words = ("--data.textures", str(folder), "--trainer.limit_val_batches", "0", *TINY)
    output = tmp_path / "out"
    assert fit(output, *words, "--trainer.max_steps", "1") == 0
    assert capsys.readouterr().err.splitlines() == [
        "vggt3: note: skipped texture bad.jpg: no readable image"
    ]
    assert {0.0, 1.0} <= set(torch.cat(worn).tolist())
    last = str(output / "last.ckpt")
    (folder / "bad.jpg").unlink()
    assert fit(output, *words, "--trainer.max_steps", "2", "--ckpt_path", last) == 0
    assert capsys.readouterr().err == ""
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    assert fit(output, *words, "--trainer.max_steps", "3", "--ckpt_path", last) == 0
    told = capsys.readouterr().err
    assert "the checkpoint saw seed 1, 3@28x28*1, 2 textures" in told and "from here on" in told


def test_a_folder_that_cannot_be_used_stops_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.glob("*.png"):
        path.unlink()
    output = tmp_path / "out"
    assert fit(output, *TINY, "--data.textures", str(folder), debug=False) == 1
    told = capsys.readouterr().err
    assert "must hold usable photos, got 1 image files (bad.jpg" in told
    assert fit(output, *TINY, "--data.photos", "0.5", debug=False) == 2
    assert "--data.photos must stand beside --data.textures" in capsys.readouterr().err
    assert not output.exists()
