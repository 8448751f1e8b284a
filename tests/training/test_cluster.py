"""The cluster configurations: each is parsed by the real parser, each script by its shell."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vggt3.training.cli import FitCLI

FOLDER = ROOT / "experiments" / "cluster"
SCRIPTS = sorted([*FOLDER.glob("*.sh"), *FOLDER.glob("*.sbatch")])
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def parsed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FitCLI, "instantiate_classes", lambda self: None)
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_a_configuration(path: Path) -> None:
    config = FitCLI("fit", ["--config", str(path)]).config
    trainer = config.trainer
    processes = int(trainer.devices) * trainer.num_nodes
    assert processes % config.share_views == 0
    if path.stem == "fsdp":
        given = trainer.strategy.init_args
        assert given.data_parallel_size * given.tensor_parallel_size == processes
        assert not given.save_distributed_checkpoint
    else:
        assert trainer.strategy == "ddp"


def called(script: Path, folder: Path, **settings: str) -> list[list[str]]:
    """What the script calls srun or torchrun with, which here only write their words down."""
    for name in ("srun", "torchrun"):
        stand_in = folder / name
        stand_in.write_text('#!/bin/bash\nprintf "%s\\n" "$@" END >> "$CALLS"\n')
        stand_in.chmod(0o755)
    calls = folder / "calls"
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), **settings}
    subprocess.run(["bash", str(script)], check=True, env=env, cwd=ROOT)
    return [x.split("\n")[:-1] for x in calls.read_text().split("END\n") if x]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_a_script(path: Path, tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    tasks = re.search(r"--array=0-(\d+)", path.read_text())
    seen = set()
    for task in range(int(tasks[1]) + 1 if tasks else 1):
        folder = tmp_path / str(task)
        folder.mkdir()
        fits = {"FITS": str(tmp_path), "SLURM_ARRAY_TASK_ID": str(task)}
        (words,) = called(path, folder, **fits)
        words = words[words.index("fit") + 1 :]
        config = FitCLI("fit", words).config
        seen.add(config.attention)
        tasks_a_node = re.search(r"--ntasks-per-node=(\d+)", path.read_text())
        assert int(config.trainer.devices) == (int(tasks_a_node[1]) if tasks_a_node else 8)
        nodes = re.search(r"--nodes=(\d+)", path.read_text())
        assert config.trainer.num_nodes == (int(nodes[1]) if nodes else 1)
    assert len(seen) == task + 1, "each task fits another backend"


def test_a_task_that_is_started_again_goes_on(tmp_path: Path) -> None:
    last = tmp_path / "linear" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    fits = {"FITS": str(tmp_path), "SLURM_ARRAY_TASK_ID": "1"}
    (words,) = called(FOLDER / "slurm_array.sbatch", tmp_path, **fits)
    assert words[words.index("--ckpt_path") + 1] == str(last)
