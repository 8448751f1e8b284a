"""``--data``: which scenes a fit learns from, in the words of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vggt3 import checks
from vggt3.data.procedural.look import Look
from vggt3.data.readers.covisibility import LEAST
from vggt3.training.curriculum import parse_recipes
from vggt3.training.data import DataOptions
from vggt3.training.mixture import Source, parse_sources
from vggt3.types import PATCH


@dataclass(frozen=True)
class SceneOptions(Look):
    """Where scenes come from, how many at a time, and what drawn ones look like."""

    sets: str = "procedural"
    """What is learned from: procedural, or data sets by layout (--data sevenscenes), several with
    weights separated by commas (--data sevenscenes:2,procedural:1)."""
    root: str | None = None
    """The folder of each data set that is no procedural one, in their order, separated by
    commas."""
    covisibility: float = LEAST
    """Views of a data set's scene that are shown together see more than this share of each
    other's depth, in chains."""
    cache: Path | None = None
    """A folder that keeps what views see of each other (default: vggt3 in the user's cache)."""
    scenes: int = 32
    """Scenes a step and process."""
    recipes: str | None = None
    """Several kinds of batches, VIEWS@HEIGHTxWIDTH*SCENES[:SHARE], separated by commas, in place
    of views, size and scenes."""
    val_recipe: str | None = None
    """The kind of batch that is validated on (default: the training's)."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require(
            0 <= self.covisibility < 1,
            "--data.covisibility",
            "be at least 0 and below 1",
            self.covisibility,
        )
        self.mixture()
        checks.require(self.scenes >= 1, "--data.scenes", "be at least 1", self.scenes)
        checks.require(
            self.val_batches >= 1, "--data.val_batches", "be 1 or more", self.val_batches
        )
        for recipe in parse_recipes(self.recipe):
            checks.require(
                recipe.views > 1, "--data.views", "be at least 2, so that there is a pose", 1
            )

    @property
    def rounded(self) -> tuple[int, int]:
        """The size in whole patches: what is rendered."""
        height, width = (max(PATCH, PATCH * round(side / PATCH)) for side in self.size)
        return height, width

    @property
    def recipe(self) -> str:
        """The kinds of batches that are learned from."""
        height, width = self.rounded
        return self.recipes or f"{self.views}@{height}x{width}*{self.scenes}"

    def mixture(self) -> tuple[Source, ...]:
        """What is learned from, and how often.

        Raises:
            UsageError: a name that is no layout, a weight that is none, a root too many or few.
        """
        return parse_sources(self.sets, self.root)

    def counts(self) -> DataOptions:
        """Which scenes, and how many."""
        return DataOptions(
            recipes=self.recipe,
            val_recipe=self.val_recipe or self.recipe.partition(",")[0].partition(":")[0],
            val_batches=self.val_batches,
            seed=self.seed,
            val_seed=self.val_seed,
            workers=self.workers,
            samples=self.samples,
        )
