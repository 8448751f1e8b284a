"""``vggt3 demo``: what it writes, and that its errors are errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vggt3 import cli
from vggt3.commands import demo
from vggt3.data.capture import read_capture
from vggt3.metrics import sideways


def test_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # an earlier demo is replaced
        assert cli.main(["demo", "--output", str(out), "--views", "2"]) == 0
    told = capsys.readouterr().out
    assert "AUC@30" in told and "a blind guess" in told
    assert len(read_capture(out / "capture").posed) == 2
    assert (out / "scene" / "preview.png").is_file()
    assert sorted(p.name for p in out.iterdir()) == ["capture", "scene"]


def test_another_attention(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["demo", "--output", str(tmp_path / "demo"), "--views", "2", "--attention"]
    assert cli.main([*words, "sofmax"]) == 2
    assert "did you mean 'softmax'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
    assert cli.main([*words, "softmax"]) == 0
    assert "softmax" in capsys.readouterr().out


def truth(views: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Cameras on a bent path with turns, and a bumpy depth."""
    n = torch.arange(views).double()
    turn = torch.zeros(views, 3, 3).double()
    turn[:, 1, 1] = 1
    turn[:, 0, 0] = turn[:, 2, 2] = torch.cos(0.4 * n)
    turn[:, 0, 2], turn[:, 2, 0] = torch.sin(0.4 * n), -torch.sin(0.4 * n)
    shift = torch.stack([0.3 * n * n, 0.1 * n, torch.sin(n)], dim=-1)
    depth = 1 + torch.rand(1, views, 14, 14, generator=torch.Generator().manual_seed(0))
    return torch.cat([turn, shift[..., None]], dim=-1)[None].float(), depth


def shown(errors: dict[str, str]) -> list[float]:
    return [float(value.rstrip("°% ")) for value in errors.values()]


def test_the_truth_has_no_error() -> None:
    poses, depth = truth()
    moved = poses.clone()
    moved[..., 3] *= 3.7  # the scale is open
    assert shown(demo._errors(moved, 0.2 * depth, poses, depth)) == [100, 0, 0, 0]


def test_a_wrong_answer_has_one() -> None:
    poses, depth = truth()
    turned = poses.clone()
    turned[..., :3] = poses[..., :3].transpose(-1, -2)
    accuracy, rotation, _, _ = shown(demo._errors(turned, depth, poses, depth))
    assert accuracy < 40 and rotation > 30
    # A step turns by 0.4 rad: 22.9° in three of the six pairs, 45.8° in two.
    accuracy, rotation, _, error = shown(
        demo._errors(sideways(poses), torch.ones_like(depth), poses, depth)
    )
    assert accuracy < 40 and rotation == pytest.approx(34.4, abs=0.1) and error > 10


def test_a_photo_without_a_pose_is_an_error_too() -> None:
    poses, depth = truth()
    lost = poses.clone()
    lost[:, -1] = torch.nan
    accuracy, rotation, _, _ = shown(demo._errors(lost, depth, poses, depth))
    assert accuracy == 50 and rotation == 0  # three of six pairs
