"""The LightningDataModule: scenes drawn or read by workers, rendered on the training device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from vggt3 import checks
from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import Renderer as Way
from vggt3.data.procedural.scene import SceneBatch
from vggt3.training.curriculum import Recipe, RecipeScenes, Steps, parse_recipes
from vggt3.training.mixture import Made, Mixture, ReadSets, joined
from vggt3.training.rendering import Rendered, Renderer

HELD_OUT = 1 << 40
"""Added to a seed for validation. Keys of streams are padded with zeros, so that one held-out scene
is one of the training's where the two seeds are equal, which is refused."""


Scenes = RecipeScenes | Mixture


@dataclass(frozen=True)
class DataOptions:
    """Which scenes, and how many."""

    recipes: str = "8@168x168*32"
    """Kinds of batches, VIEWS@HEIGHTxWIDTH*SCENES[:SHARE], separated by commas."""
    val_recipe: str = "8@168x168*32"
    """The kind of batch that is validated on."""
    val_batches: int = 4
    """Batches of a validation."""
    seed: int = 1
    """Names the endless sequence of scenes."""
    val_seed: int = 0
    """Names the held-out scenes."""
    workers: int = -1
    """Processes that draw scenes; -1 is all cores but one on a GPU machine, else none."""
    samples: int = 1
    """Rays a pixel for its colour: 1, or 4 for smooth edges."""
    renderer: Way = "auto"
    """torch, triton (on a CUDA device) or auto, the fastest that is there."""

    def __post_init__(self) -> None:
        checks.require(self.samples in (1, 4), "--data.samples", "be 1 or 4", self.samples)
        for name in ("seed", "val_seed"):
            value = getattr(self, name)
            told = "be between 0 and 2⁴⁰ - 1"  # held-out seeds and exams' lie above
            checks.require(0 <= value < HELD_OUT, f"--data.{name}", told, value)
        name, wanted = "--data.seed", f"differ from --data.val_seed, {self.val_seed}"
        checks.require(self.seed != self.val_seed, name, wanted, self.seed)
        views = min(recipe.views for recipe in parse_recipes(self.val_recipe, "--data.val_recipe"))
        wanted = "have at least 2 views, so that there is a pose"
        checks.require(views > 1, "--data.val_recipe", wanted, self.val_recipe)
        checks.require(self.workers >= -1, "--data.workers", "be at least -1", self.workers)


@dataclass(frozen=True)
class Batches:
    """Drawn or read batches of the given steps; iterating again starts over."""

    steps: Steps
    scenes: Scenes
    workers: int = 0

    def __iter__(self) -> Iterator[Made]:
        if self.workers == 0:
            for keys in self.steps:
                yield joined([self.scenes[key] for key in keys])
            return
        loader: DataLoader[Made] = DataLoader(
            self.scenes,
            batch_sampler=self.steps,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=joined,
            prefetch_factor=2,
            worker_init_fn=_one_thread,
        )
        yield from loader


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


class ProceduralData(LightningDataModule):
    """Scenes without end for training, a fixed set of others for validation: procedural ones,
    or those of data sets."""

    def __init__(
        self,
        options: DataOptions | None = None,
        look: ProceduralConfig | None = None,
        bank: Bank | None = None,
        read: ReadSets | None = None,
    ) -> None:
        super().__init__()
        self.options = options or DataOptions()
        self.look = look or ProceduralConfig()
        self.recipes = parse_recipes(self.options.recipes)
        self.bank, self.read = bank, read
        self.sharing = 1
        """Neighbouring processes that see the same scenes (and share their views)."""
        self._validation: list[SceneBatch] | None = None

    @property
    def device(self) -> torch.device:
        """Where batches are rendered and used."""
        assert self.trainer is not None, "data is asked for by a trainer"
        return self.trainer.strategy.root_device

    def renderer(self) -> Renderer:
        """Parameters → pictures on the training device."""
        self.bank = None if self.bank is None else self.bank.to(self.device)
        return Renderer(self.device, self.bank, self.options.samples, self.options.renderer)

    def train_dataloader(self) -> Rendered:
        """Batches from the current step on, without end."""
        trainer = self.trainer
        assert trainer is not None
        steps = self.steps(trainer.global_step * trainer.accumulate_grad_batches)
        scenes = self.scenes(self.recipes, self.options.seed)
        workers = self.options.workers
        if workers < 0:
            cores = (os.cpu_count() or 1) // max(1, trainer.num_devices)
            workers = max(1, cores - 1) if self.device.type == "cuda" else 0
        return Rendered(Batches(steps, scenes, workers), self.renderer())

    def steps(self, first: int, count: int | None = None) -> Steps:
        """This process's batches from ``first`` on."""
        assert self.trainer is not None
        rank = self.trainer.global_rank // self.sharing
        ranks = self.trainer.world_size // self.sharing
        return Steps(self.recipes, self.options.seed, first, count, rank, ranks)

    def scenes(self, recipes: tuple[Recipe, ...], seed: int, held_out: bool = False) -> Scenes:
        """Where a seed's scenes come from."""
        drawn = RecipeScenes(recipes, self.look, seed)
        return drawn if self.read is None else Mixture(drawn, self.read, recipes, seed, held_out)

    def drawn(self, batch: int) -> Made:
        """The scenes of one batch of training."""
        scenes = self.scenes(self.recipes, self.options.seed)
        return next(iter(Batches(self.steps(batch, 1), scenes)))

    def scenes_of(self, step: int) -> str:
        """Which scenes a step of this process sees, in words."""
        assert self.trainer is not None
        each = self.trainer.accumulate_grad_batches
        keys = [key for batch in self.steps(step * each, each) for key in batch]
        names = self.options.recipes.split(",")
        first, last = keys[0], keys[-1]
        return f"seed {self.options.seed}, scenes {first[1]}-{last[1]} of {names[first[0]]}"

    @property
    def described(self) -> str:
        """What is learned from, in words."""
        worn = ""
        if self.bank is not None:
            worn = f", {self.bank.count} textures {self.bank.digest[:16]}"
        read = "" if self.read is None else f", {self.read.described}"
        return f"seed {self.options.seed}, {self.options.recipes}{worn}{read}"

    def transfer_batch_to_device(
        self, batch: SceneBatch, device: torch.device, dataloader_idx: int
    ) -> SceneBatch:
        """Nothing to do: batches are rendered where they are used."""
        return batch

    def val_dataloader(self) -> DataLoader[SceneBatch]:
        """The held-out batches, rendered once."""
        if self._validation is None:
            self._validation = self._held_out(HELD_OUT + self.options.val_seed)
        return _given(self._validation)

    def test_dataloader(self) -> DataLoader[SceneBatch]:
        """As many batches again: of procedural scenes that no validation has seen; of data sets'
        held-out scenes, which a validation draws from too."""
        return _given(self._held_out(2 * HELD_OUT + self.options.val_seed))

    def predict_dataloader(self) -> DataLoader[SceneBatch]:
        """The held-out batches."""
        return self.val_dataloader()

    def _held_out(self, seed: int) -> list[SceneBatch]:
        recipes = parse_recipes(self.options.val_recipe)
        steps = Steps(recipes, seed, count=self.options.val_batches)
        batches = Batches(steps, self.scenes(recipes, seed, held_out=True))
        render = self.renderer()
        return [render(parameters) for parameters in batches]


def _given(batches: Any) -> DataLoader[SceneBatch]:
    """Batches as they are, looked at without touching the training's random numbers."""
    return DataLoader(batches, batch_size=None, generator=torch.Generator())
