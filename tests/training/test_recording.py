"""Recorded steps: the gradients of computed ones, in one tensor, replayed on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.training.conftest import OneScene, quiet_trainer, smooth_scene
from tests.training.processes import together
from vggt3.checks import UsageError
from vggt3.distributed import World
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.training.module import LearningOptions, Training
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.recording import Recorder


def trained(record: bool, steps: int = 3, method: str = "adamw", **trainer: object) -> Training:
    torch.manual_seed(0)
    model = VGGT3.build(TINY, "ttt_shortconv")
    learning = LearningOptions(train="all", record=record, dense_every=2)
    module = Training(model, learning, OptimizerOptions(lr=1e-3, method=method))
    quiet_trainer(steps, **trainer).fit(module, OneScene(smooth_scene()))
    return module


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_recorded_steps_move_the_weights_as_others_do(method: str) -> None:
    one, other = (trained(record, method=method).model.state_dict() for record in (False, True))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_gradients_lie_side_by_side() -> None:
    module = trained(True)
    recorder = module.recorder
    assert recorder is not None
    assert all(p.grad is not None for p in recorder.parameters)
    total = sum(float(p.grad.square().sum()) for p in recorder.parameters if p.grad is not None)
    assert total == pytest.approx(float(recorder.gradients.square().sum()), rel=1e-5)
    recorder.gradients.zero_()
    assert not any(bool(p.grad.any()) for p in recorder.parameters if p.grad is not None)


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_a_gradient_that_is_not_finite_moves_nothing(
    record: bool, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what earlier ones have left in the momentum: three steps of which the last two
    are left out are the first alone."""
    monkeypatch.setattr("vggt3.training.callbacks.MOST_SKIPPED", 1.0)
    clip = torch.nn.utils.clip_grad_norm_
    alone = trained(record, 1, method).model.state_dict()
    times: list[int] = []

    def broken(parameters: list[Tensor], limit: float) -> Tensor:
        times.append(1)
        if len(times) > 1:
            assert parameters[3].grad is not None
            parameters[3].grad.view(-1)[0] = torch.nan
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", broken)
    found = trained(record, 3, method).model.state_dict()
    assert len(times) == 3
    for name, tensor in alone.items():
        assert torch.equal(tensor, found[name]), name


def test_what_it_cannot_stand_beside_is_named() -> None:
    with pytest.raises(UsageError, match="record must stand without trainer"):
        trained(True, accumulate_grad_batches=2)


def average_two(output: Path) -> None:
    """Two processes whose gradients are 0, 1, 2, … and ten times that."""
    dist.init_process_group("gloo")
    world = World.current()
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    recorder = Recorder(lambda batch, shown: {}, [weight])
    recorder.gradients.copy_(torch.arange(6.0) * (10.0 if world.rank else 1.0))
    recorder.average(world)
    assert weight.grad is not None
    torch.save(weight.grad.clone(), output / f"{world.rank}.pt")
    dist.destroy_process_group()


def test_processes_average_their_gradients(tmp_path: Path) -> None:
    together(2, average_two, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(found, 5.5 * torch.arange(6.0).reshape(2, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_replay_gives_the_gradient_of_its_batch() -> None:
    model = VGGT3.build(TINY, "softmax").cuda()
    module = Training(model, LearningOptions(train="all"))
    moving = [p for p in model.parameters() if p.requires_grad]
    recorder = Recorder(module.terms, moving)
    scenes = [smooth_scene() for _ in range(2)]
    scenes[1].images.mul_(0.5)
    for scene in (*scenes, *scenes):
        batch = type(scene)(**{n: t.cuda() for n, t in vars(scene).items()})
        found = recorder.step(batch, slice(None))
        replayed = recorder.gradients.clone()
        _, wanted = recorder.compute(batch, slice(None))
        torch.testing.assert_close(found["loss"], wanted[0], rtol=1e-4, atol=1e-4)
        assert float((replayed - recorder.gradients).norm()) < 1e-3 * float(replayed.norm())
