"""Processes that fit together, on scenes each or on views of one scene, do what one does."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.training.conftest import smooth_scene
from tests.training.fits import TINY, fit, learned, painted
from tests.training.processes import together
from vggt3.data.procedural.scene import SceneBatch
from vggt3.distributed import World
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import start_model
from vggt3.training.fit import Fitting
from vggt3.training.keeping import Keeper
from vggt3.training.module import LearningOptions, dealt, some_of
from vggt3.training.rendering import Renderer
from vggt3.training.sequence import SharedFitting

WORDS = [
    *TINY,
    "--attention",
    "ttt_shortconv",
    "--attention.initial",
    "learned",
    "--trainer.max_steps",
    "3",
    "--save_every",
    "2",
]


def fit_both(output: Path, words: list[str]) -> None:
    """One of two processes, as torchrun starts them."""
    Renderer.__call__ = painted  # type: ignore[method-assign]
    assert fit(output, *WORDS, *words, "--trainer.devices", "2") == 0


def validate(output: Path, words: list[str]) -> None:
    """Score three batches of three scenes."""
    Renderer.__call__ = painted  # type: ignore[method-assign]
    scenes = ["--data.scenes", "3", "--data.val_batches", "3"]
    assert fit(output, *TINY, *scenes, *words, command="validate") == 0


def test_the_processes_scores_are_those_of_one(tmp_path: Path, cheap: None) -> None:
    """Nine scenes are five and four, and of each batch two and one."""
    both = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    together(2, validate, tmp_path / "pair", both)
    validate(tmp_path / "alone", [])
    pair, alone = (scores(tmp_path / name / "log.txt") for name in ("pair", "alone"))
    assert pair.keys() == alone.keys() and len(alone) == 8
    assert pair == pytest.approx(alone, abs=2e-3)
    halves = [dealt(3, batch, World(rank, 2)) for batch in range(3) for rank in range(2)]
    assert halves == [[0, 2], [1], [1], [0, 2], [0, 2], [1]]


def scores(log: Path) -> dict[str, float]:
    """What the one line of scores says."""
    (line,) = (x for x in log.read_text().splitlines() if x.startswith("validation"))
    words = line.partition(": ")[2].split()
    return dict(zip(words[::2], map(float, words[1::2]), strict=True))


def check_same(alone: Path, pair: Path) -> None:
    one, two = learned(alone), learned(pair)
    assert one.keys() == two.keys()
    moments = [name for name in one if name.endswith("exp_avg")]
    scale = max(float(one[name].norm()) for name in moments)
    for name in moments:
        # Adam makes a step of a rounding error where a gradient is nearly zero: its sums say it.
        error = float((two[name] - one[name]).norm())
        assert error <= 1e-4 * float(one[name].norm()) + 1e-5 * scale, name


def go_on(output: Path, words: list[str]) -> None:
    """A fit of two processes that is stopped after two steps, and goes on."""
    keep = Keeper.on_train_batch_end

    def stop(keeper: Keeper, trainer: Trainer, *rest: Any) -> None:
        trainer.should_stop = trainer.global_step == 2
        keep(keeper, trainer, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "on_train_batch_end", stop)
        fit_both(output, words)
    assert torch.load(output / "last.ckpt", weights_only=True)["global_step"] == 2
    fit_both(output, [*words, "--ckpt_path", str(output / "last.ckpt")])


DDP = ["--trainer.strategy", "ddp"]
FSDP = ["--config", str(ROOT / "experiments" / "cluster" / "fsdp.yaml")]
FSDP += ["--trainer.accelerator", "cpu", "--trainer.strategy.init_args.data_parallel_size", "2"]
TWICE = ["--trainer.accumulate_grad_batches", "2"]


@pytest.mark.parametrize(
    ("words", "single"),
    [(DDP, TWICE), ([*DDP, "--share-views", "2"], []), (FSDP, TWICE)],
    ids=["scenes", "views", "fsdp"],
)
def test_two_processes_equal_one(
    tmp_path: Path, cheap: None, words: list[str], single: list[str]
) -> None:
    pair, alone = tmp_path / "pair", tmp_path / "alone"
    together(2, go_on if words is FSDP else fit_both, pair, words)
    assert fit(alone, *WORDS, *single) == 0
    check_same(alone, pair)
    log = (pair / "log.txt").read_text()
    assert log.count("\nstep 3 ") == 1, "one process speaks"
    if "--share-views" not in words:
        one, two = (load_file(f / "backbone.safetensors") for f in (alone, pair))
        assert all(torch.equal(one[n], two[n]) for n in one)
    more = ["--ckpt_path", str(pair / "last.ckpt"), "--trainer.max_steps", "4"]
    assert fit(pair, *WORDS, *more) == 0, "one process goes on from two"


def test_an_encoder_learns_spread_over_two(tmp_path: Path, cheap: None) -> None:
    """It has a parameter without numbers where it has no registers."""
    pair, alone, learns = tmp_path / "pair", tmp_path / "alone", ["--learning.train", "encoder"]
    together(2, fit_both, pair, [*FSDP, *learns])
    assert fit(alone, *WORDS, *TWICE, *learns) == 0
    check_same(alone, pair)


def gradients(module: Fitting, scene: SceneBatch) -> dict[str, torch.Tensor]:
    module.train()
    _, loss = module.loss(scene, *module.predict_batch(scene))
    loss.backward()
    if isinstance(module, SharedFitting):
        module.sum_gradients()
    return {n: p.grad for n, p in module.model.named_parameters() if p.grad is not None}


def scenes_of(views: int, count: int) -> SceneBatch:
    """Scenes with as many valid pixels each, so that their mean is the mean of their pixels."""
    one = smooth_scene(views)
    images = torch.cat([one.images.roll(5 * n, -1) for n in range(count)])
    depth = torch.cat([one.depth * (1 + 0.2 * n * one.valid) for n in range(count)])
    repeated = {
        f.name: getattr(one, f.name).expand(count, *getattr(one, f.name).shape[1:])
        for f in fields(one)
    }
    batch = SceneBatch(**{**repeated, "images": images, "depth": depth})
    floats = {f.name: getattr(batch, f.name) for f in fields(batch)}
    wide = {n: x.double() for n, x in floats.items() if x.is_floating_point()}
    return replace(batch, **wide)


def share_scenes(cases: list[tuple[int, int, str]]) -> None:
    """One process's part of the gradient against that of one process on all scenes."""
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    for sharing, views, name in cases:
        found = {}
        batch = scenes_of(views, size // sharing)
        for kind in (Fitting, SharedFitting):
            loaded = start_model(ModelChoice(preset="tiny", attention=name), dtype=torch.float64)
            module = kind(loaded, LearningOptions(train="all")).double()
            own = batch
            if isinstance(module, SharedFitting):
                module.share(sharing, torch.device("cpu"))
                own = some_of(batch, [rank // sharing])
            found[kind] = gradients(module, own)
        whole, ours = found[Fitting], found[SharedFitting]
        scale = max(float(gradient.norm()) for gradient in whole.values())
        for key, gradient in whole.items():
            error = float((ours[key] - gradient).norm())
            limit = 1e-9 * max(float(gradient.norm()), 1e-6 * scale)
            assert error <= limit, (sharing, views, name, rank, key, error / limit)
    dist.destroy_process_group()


def test_shared_scenes_have_the_gradient_of_one_process() -> None:
    """Four processes: 2 scenes × 2 processes of 2 + 1 views, and 1 scene of 1 + 1 + 1 + 0."""
    together(4, share_scenes, [(2, 3, "ttt_shortconv"), (4, 3, "softmax")])
