"""An ablation's folder while others write into it."""

from __future__ import annotations

from pathlib import Path

from vggt3.files import replacing
from vggt3.training.ablation.folder import FITS, SCORES, Folder

KEY, TENSORS = "abc", "9876543210"


def test_what_others_are_writing_is_not_there_yet(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.open({"exam": "x"})
    (tmp_path / "weights.safetensors").write_text("tensors")
    fit = tmp_path / FITS / f"row-{KEY}-{TENSORS}.json"
    score = tmp_path / SCORES / f"row-{KEY}-{TENSORS}-0011.json"
    with replacing(fit) as one, replacing(score) as other:
        one.write_text('{"half": ')
        other.write_text('{"half": ')
        assert folder.fits(KEY) == [] and folder.scores(KEY, TENSORS) == {}
        folder.add_fit("row", KEY, tmp_path / "weights.safetensors", {"content": TENSORS * 2})
        (found,) = folder.fits(KEY)
        assert found.tensors == TENSORS and found.adapter is not None
        one.write_text("{}")
        other.write_text("{}")
