"""Processes that fit together, on scenes each or on views of one scene, do what one does."""

from __future__ import annotations

import os
import socket
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from tests.training.conftest import smooth_scene
from tests.training.fits import TINY, fit, learned, painted
from vggt3.data.procedural.scene import SceneBatch
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import start_model
from vggt3.training.fit import Fitting
from vggt3.training.module import LearningOptions
from vggt3.training.rendering import Renderer
from vggt3.training.sequence import SharedFitting

WORDS = [*TINY, "--attention", "ttt_shortconv", "--trainer.max_steps", "3", "--save_every", "2"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fit_rank(rank: int, port: int, output: Path, words: list[str]) -> None:
    """One of two processes, as torchrun starts them."""
    torch.set_num_threads(1)
    places = {"LOCAL_RANK": rank, "RANK": rank, "WORLD_SIZE": 2, "NODE_RANK": 0}
    os.environ.update({name: str(place) for name, place in places.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    Renderer.__call__ = painted  # type: ignore[method-assign]
    pair = ["--trainer.devices", "2", "--trainer.strategy", "ddp", *words]
    assert fit(output, *WORDS, *pair) == 0


def check_same(alone: Path, pair: Path) -> None:
    one, two = learned(alone), learned(pair)
    assert one.keys() == two.keys()
    moments = [name for name in one if name.endswith("exp_avg")]
    scale = max(float(one[name].norm()) for name in moments)
    for name in moments:
        # Adam makes a step of a rounding error where a gradient is nearly zero: its sums say it.
        error = float((two[name] - one[name]).norm())
        assert error <= 1e-4 * float(one[name].norm()) + 1e-5 * scale, name


@pytest.mark.parametrize(
    ("shared", "single"),
    [([], ["--trainer.accumulate_grad_batches", "2"]), (["--share-views"], [])],
    ids=["scenes", "views"],
)
def test_two_processes_equal_one(
    tmp_path: Path, cheap: None, shared: list[str], single: list[str]
) -> None:
    pair, alone = tmp_path / "pair", tmp_path / "alone"
    spawn(fit_rank, (free_port(), pair, shared), nprocs=2)
    assert fit(alone, *WORDS, *single) == 0
    check_same(alone, pair)
    log = (pair / "log.txt").read_text()
    assert log.count("\nstep 3 ") == 1, "one process speaks"
    more = ["--ckpt_path", str(pair / "last.ckpt"), "--trainer.max_steps", "4"]
    assert fit(pair, *WORDS, *more) == 0, "one process goes on from two"


def gradients(module: Fitting, scene: SceneBatch) -> dict[str, torch.Tensor]:
    module.train()
    _, loss = module.loss(scene, *module.predict_batch(scene))
    loss.backward()
    if isinstance(module, SharedFitting):
        module.sum_gradients()
    return {n: p.grad for n, p in module.model.named_parameters() if p.grad is not None}


def share_scene(rank: int, size: int, views: int, port: int) -> None:
    """One process's part of a scene against the scene in one process."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=size)
    scene = smooth_scene(views)
    for field in fields(scene):
        value = getattr(scene, field.name)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            scene = replace(scene, **{field.name: value.double()})
    for name in ("softmax", "ttt_shortconv"):
        found = {}
        for kind in (Fitting, SharedFitting):
            loaded = start_model(ModelChoice(preset="tiny", attention=name), dtype=torch.float64)
            found[kind] = gradients(kind(loaded, LearningOptions(train="all")).double(), scene)
        whole, ours = found[Fitting], found[SharedFitting]
        scale = max(float(gradient.norm()) for gradient in whole.values())
        for key, gradient in whole.items():
            error = float((ours[key] - gradient).norm())
            limit = 1e-9 * max(float(gradient.norm()), 1e-6 * scale)
            assert error <= limit, (name, rank, key, error / limit)
    dist.destroy_process_group()


@pytest.mark.parametrize(("size", "views"), [(2, 3), (3, 2)], ids=["2+1", "1+1+0"])
def test_a_shared_scene_has_the_gradient_of_one_process(size: int, views: int) -> None:
    spawn(share_scene, (size, views, free_port()), nprocs=size)
