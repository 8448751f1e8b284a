"""A whole run on the CPU: rendered scenes in, weights and scores out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

from vggt3.checks import UsageError
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.scene import SceneBatch
from vggt3.losses import LossWeights
from vggt3.model.choice import ModelChoice
from vggt3.model.config import TINY
from vggt3.model.opening import SHIPPED, open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.training import callbacks
from vggt3.training.callbacks import Deadline
from vggt3.training.data import DataOptions, ProceduralData
from vggt3.training.module import LearningOptions, Training
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.run import RunOptions, make_model, run

DATA = DataOptions(recipes="2@14x28*1", val_recipe="3@14x14*1", val_batches=1)


def one_run(output: Path, options: RunOptions, **model: object) -> dict[str, float]:
    torch.manual_seed(0)
    made = make_model("tiny", **{"attention": "softmax", **model})  # type: ignore[arg-type]
    module = Training(made, LearningOptions(train="all"), OptimizerOptions(warmup=1), LossWeights())
    return run(module, ProceduralData(DATA, ProceduralConfig(furniture=(1, 2))), output, options)


def test_a_run_leaves_weights_scores_and_a_log(tmp_path: Path) -> None:
    scores = one_run(tmp_path, RunOptions(steps=7, every=1, validate_every=4, profile=1))
    assert {"val/auc@30", "val/trivial", "val/absrel"} <= scores.keys()
    log = (tmp_path / "log.txt").read_text()
    assert log.count("\nstep ") == 7 and log.count("validation at step") == 2
    assert "ms a step" in (tmp_path / "profile.txt").read_text()
    for name in ("trunk-1.safetensors", "adapter.safetensors"):
        assert (tmp_path / name).is_file()
    one_run(tmp_path / "more", RunOptions(steps=1), start=tmp_path, attention="ttt_shortconv")


def test_a_run_ends_when_its_time_is_up(tmp_path: Path) -> None:
    one_run(tmp_path, RunOptions(seconds=0.01))
    assert "step 1 " in (tmp_path / "log.txt").read_text()


def test_a_run_needs_an_end() -> None:
    with pytest.raises(UsageError, match="--steps or --seconds"):
        RunOptions()


def test_a_run_begins_with_a_backbone_that_ships() -> None:
    ships = SHIPPED / "small.safetensors"
    made = make_model("small", "ttt_shortconv", start=ships)
    softmax = open_model(ModelChoice(attention="softmax")).model.state_dict()
    kept = ["encoder.patch.weight", "camera_head.branch.fc2.weight"]
    kept += [f"aggregator.global_blocks.8.attn.{n}.weight" for n in ("qkv", "proj")]
    for name in kept:
        assert torch.equal(made.state_dict()[name], softmax[name]), name
    assert {spec.name for spec in made.specs} == {"ttt_shortconv"} and made.training


def test_a_run_that_breaks_off_leaves_what_its_steps_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Training.training_step

    def third_fails(module: Training, batch: SceneBatch, batch_idx: int) -> torch.Tensor:
        if batch_idx == 2:
            raise RuntimeError("the machine is taken back")
        return whole(module, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", third_fails)
    with pytest.raises(RuntimeError, match="taken back"):
        one_run(tmp_path, RunOptions(steps=5))
    with safe_open(tmp_path / "adapter.safetensors", "pt") as file:
        assert file.metadata()["step"] == "2"


def test_an_adapter_that_ships_is_gone_on_with() -> None:
    ships = SHIPPED / "small.safetensors"
    adapter = SHIPPED / "small.ttt_shortconv.safetensors"
    opened = open_model(ModelChoice(attention="ttt_shortconv")).model
    options = dict(opened.specs[0].options)
    assert options["sweeps"] == 2, "auto would read a thousand photos as it never learned to"
    made = make_model("small", "ttt_shortconv", options, start=ships, adapter=adapter)
    theirs = opened.state_dict()
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_clock_may_start_after_the_step_that_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 130.0, 161.0])  # the first step is not timed at all
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(now)))
    deadline, module = Deadline(60, after=1), Training(VGGT3.build(TINY, "softmax"))
    trainer: Any = SimpleNamespace(global_step=0, world_size=1, should_stop=False)
    for gone in (0.0, 30.0, 61.0):
        assert not trainer.should_stop
        deadline.on_train_batch_start(trainer, module, None, 0)
        trainer.global_step += 1
        deadline.on_train_batch_end(trainer, module)
        assert deadline.gone == gone
    assert trainer.should_stop and module.progress == 0.5


def course(
    deadline: Deadline,
    clock: Iterator[float],
    monkeypatch: pytest.MonkeyPatch,
    steps: int | None = None,
    **process: Any,
) -> list[float]:
    """What of the run is done before each step, until it ends or so many steps are over."""
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    module = Training(VGGT3.build(TINY, "softmax"))
    trainer: Any = SimpleNamespace(
        **{"global_step": 0, "world_size": 1, "should_stop": False, **process}
    )
    seen = []
    while not trainer.should_stop and len(seen) != steps:
        deadline.on_train_batch_start(trainer, module, None, 0)
        seen.append(module.progress)
        trainer.global_step += 1
        deadline.on_train_batch_end(trainer, module)
    return seen


def test_the_rate_does_not_fall_while_the_machine_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lent for 100 s of which 20 go into two steps: the course is over the other 80."""
    now = iter([10.0, 20.0, 40.0, 60.0, 100.0])
    deadline = Deadline(100, since=0.0, after=2)
    seen = course(deadline, now, monkeypatch)
    assert seen == [0.0, 0.0, 0.0, 0.25, 0.5] and deadline.gone == 100.0


def test_a_machine_that_compiles_for_ever_still_ends_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([30.0, 60.0, 80.0, 100.0])
    deadline = Deadline(100, since=0.0, after=50)
    seen = course(deadline, now, monkeypatch)
    assert seen == [0.0, 0.0, 0.0, 0.5]
    with pytest.raises(UsageError, match="--compiling must come with --seconds"):
        RunOptions(steps=3, compiling=1)


def test_processes_read_one_clock_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks nothing changes, and what is before the course is what all have read."""
    now = iter(range(10, 1000, 10))
    monkeypatch.setattr(callbacks, "TOGETHER", 3)
    deadline = Deadline(100, since=0.0, after=1)
    told = iter([40.0, 70.0])  # the first process's clock
    strategy = SimpleNamespace(broadcast=lambda mine: next(told))
    seen = course(deadline, now, monkeypatch, steps=7, world_size=2, strategy=strategy)
    assert seen == [0.0] * 6 + [0.5] and deadline.ahead == 40.0
