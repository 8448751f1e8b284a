"""Processes on one device: trainings take turns, and times wait until all is quiet."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.ablation.counting import Counted
from tests.training.ablation.toy import ROWS, toy, work
from vggt3.training.ablation import fits, table
from vggt3.training.ablation import work as works
from vggt3.training.ablation.options import Leg
from vggt3.training.ablation.settings import RowSettings
from vggt3.training.ablation.turns import turn

pytestmark = pytest.mark.usefixtures("cheap")


def _hold(path: Path) -> None:
    with turn(torch.device("cpu")):
        (path / "held").touch()
        while not (path / "go").exists():
            time.sleep(0.01)
        (path / "left").touch()


@pytest.mark.skipif(os.name != "posix", reason="nobody waits there")
def test_trainings_take_turns(
    backbone: Path, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path,))
    other.start()
    try:
        while not (tmp_path / "held").exists():
            assert other.is_alive()
            time.sleep(0.01)
        threading.Timer(0.5, (tmp_path / "go").touch).start()
        train = fits.train

        def late(*args: Any) -> Any:
            assert (tmp_path / "left").exists(), "the turn is another's"
            return train(*args)

        monkeypatch.setattr(fits, "train", late)
        leg = Leg(row="1/2", take_turns=True)
        assert work(toy(backbone), tmp_path / "out", leg=leg).do() and counted.trainings == 1
        with turn(torch.device("cpu")):
            forked = os.fork()
            if forked == 0:  # as a worker that outlives the training
                time.sleep(20)
                os._exit(0)
        began = time.monotonic()
        with turn(torch.device("cpu")):
            assert time.monotonic() - began < 10
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
    finally:
        (tmp_path / "go").touch()
        other.join(30)


def test_times_wait_for_a_run_of_their_own(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of backends, not of weights: rows that differ in training alone share one."""
    twice = [*ROWS, {"name": "again", "attention": "ttt_shortconv"}]
    ablation = toy(backbone, twice, exam={"scenes": {"v8": 1}, "points": "none", "repeat": 2})
    began: list[tuple[str, int]] = []
    take = works.timed

    def timed(row: RowSettings, *given: Any) -> dict[str, Any]:
        began.append((row.name, given[2]))
        return take(row, *given)

    monkeypatch.setattr(works, "timed", timed)
    first = work(ablation, tmp_path / "out", leg=Leg(times="none"))
    assert first.do() and not began
    assert all(line.ms_a_view is None and len(line.by_scene) == 1 for line in table.lines(first))
    assert work(ablation, tmp_path / "out").do() and work(ablation, tmp_path / "out").do()
    assert began == [("softmax", 2), ("from scratch", 2)]
    found = {line.row.name: line.ms_a_view for line in table.lines(first)}
    assert found["again"] == found["from scratch"] != found["softmax"]
    assert all(time is not None and time > 0 for time in found.values())
