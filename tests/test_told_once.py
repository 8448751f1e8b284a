"""Errors of torchrun's processes before they have met: told once, and never lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vggt3 import cli

PROGRAM = """
import os, sys
from vggt3 import cli
words = sys.argv[1:]
if os.environ["RANK"] != "1":
    words = [word for word in words if word != "--for-one"]
code = cli.main(words)
open(f"code-{os.environ['RANK']}", "w").write(str(code))
sys.exit(0)  # so that torchrun stops no other
"""


def run(folder: Path, *words: str) -> tuple[list[str], list[str]]:
    """Exit codes of two processes, and the lines on their stderr that are of vggt3."""
    (folder / "program.py").write_text(PROGRAM)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [*start, "program.py", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    codes = [(folder / f"code-{rank}").read_text() for rank in range(2)]
    return codes, [line for line in done.stderr.splitlines() if "vggt3: " in line]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("reconstruct", "x", "-o", "y", "--chunk", "0"), "2", "--chunk must be at least 1, got 0"),
        (("reconstruct", "x", "-o", "y", "--device", "cuda:99"), "2", "--device must be"),
        (("fit", "--trainer.max_step", "1"), "2", "did you mean '--trainer.max_steps'?"),
    ],
)
def test_what_is_wrong_for_all_is_told_once(
    tmp_path: Path, words: tuple[str, ...], code: str, message: str
) -> None:
    codes, said = run(tmp_path, *words)
    assert codes == [code, code]
    assert len(said) == 1 and message in said[0], said


def test_what_is_wrong_for_one_alone_is_told(tmp_path: Path) -> None:
    codes, said = run(tmp_path, "--version", "--for-one")
    assert codes == ["0", "0"] and not said
    codes, said = run(tmp_path, "--for-one", "--version")
    assert codes == ["0", "2"]
    assert len(said) == 1 and "'--for-one'" in said[0], said


def test_without_torchruns_store_each_tells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert cli.main(["reconstruct", "x", "-o", "y", "--chunk", "0"]) == 2
    assert "--chunk" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # and nobody is there
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "none")
    assert cli.main(["reconstruct", "x", "-o", "y", "--chunk", "0"]) == 2
    assert "--chunk" in capsys.readouterr().err
