"""The bar of a terminal, and the lines elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.fits import TINY, fit

WORDS = [*TINY, "--attention", "linear", "--trainer.max_steps", "4", "--save_every", "100"]
WORDS += ["--trainer.val_check_interval", "2"]


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_step_is_a_line_or_the_bar_s(
    tmp_path: Path,
    terminal: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert fit(tmp_path, *WORDS) == 0
    told = capsys.readouterr()
    printed = told.out.replace("\r", "\n").splitlines()
    log = (tmp_path / "log.txt").read_text().splitlines()
    for step in range(1, 5):
        line = f"step {step} "
        assert sum(x.startswith(line) for x in printed) == (not terminal)
        assert sum(x.startswith(line) for x in log) == 1
    for step in (2, 4):
        line = f"validation at step {step}:"
        assert sum(line in x for x in printed) == sum(line in x for x in log) == 1
    assert any("4/4 " in x and "loss " in x for x in printed) == terminal
    assert told.err == ""


@pytest.mark.usefixtures("cheap")
def test_a_terminal_without_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert fit(tmp_path, *WORDS, "--trainer.enable_progress_bar", "false") == 0
    printed = capsys.readouterr().out
    assert "step 4 " in printed and "\r" not in printed
