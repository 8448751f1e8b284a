"""Which scenes a step sees: a function of the step, so that a resumed run sees the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch.utils.data import Dataset

from vggt3 import checks
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.scene import SceneParameters
from vggt3.data.procedural.scenes import draw_scene
from vggt3.types import PATCH

PICK = 0x5EED
"""Keeps the stream that picks a step's recipe apart from the streams of scenes."""

Key = tuple[int, int]
"""A recipe and the index of a scene."""


@dataclass(frozen=True)
class Recipe:
    """A kind of batch: all of its scenes have one shape."""

    views: int
    size: tuple[int, int]
    """Height and width in pixels."""
    scenes: int
    """B: scenes a step."""
    share: float = 1.0
    """How often it is drawn, relative to the others."""


def parse_recipes(text: str, name: str = "--data.recipes") -> tuple[Recipe, ...]:
    """``VIEWS@HEIGHTxWIDTH*SCENES[:SHARE],…``, such as ``8@168x168*32,16@168x224*12:0.5``.

    Raises:
        UsageError: a text of another form, or a size that is no multiple of 14.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)@(\d+)x(\d+)\*(\d+)(?::(\d+\.?\d*|\.\d+))?\s*", part)
        if match is None:
            checks.fail(name, "look like 8@168x168*32,16@168x224*12:0.5", f"'{part}'")
        views, height, width, scenes = (int(match[n]) for n in (1, 2, 3, 4))
        checks.require(
            height % PATCH == 0 and width % PATCH == 0 and min(views, scenes, height, width) > 0,
            name,
            f"have views, scenes ≥ 1 and sizes in multiples of {PATCH}",
            f"'{part.strip()}'",
        )
        found.append(Recipe(views, (height, width), scenes, float(match[5] or 1)))
    checks.require(sum(r.share for r in found) > 0, name, "have a share above 0", text)
    return tuple(found)


class RecipeScenes(Dataset[SceneParameters]):
    """Scene (recipe, index) of a seed, drawn on the CPU; equal keys give equal scenes."""

    def __init__(self, recipes: tuple[Recipe, ...], config: ProceduralConfig, seed: int) -> None:
        self.configs = [replace(config, views=r.views, size=r.size) for r in recipes]
        self.seed = seed

    def __getitem__(self, key: Key) -> SceneParameters:
        recipe, index = key
        return draw_scene(self.configs[recipe], self.seed, index)


@dataclass(frozen=True)
class Steps:
    """The keys of each step's batch, from step ``first`` on: endless, or ``count`` steps."""

    recipes: tuple[Recipe, ...]
    seed: int
    first: int = 0
    count: int | None = None
    rank: int = 0
    """This rank on the data axis: ranks see different scenes of the same recipe."""
    ranks: int = 1

    def keys(self, step: int) -> list[Key]:
        """The batch of one step."""
        pick = Draw(PICK, self.seed, step).weighted([recipe.share for recipe in self.recipes])
        room = max(recipe.scenes for recipe in self.recipes)
        start = (step * self.ranks + self.rank) * room
        return [(pick, start + n) for n in range(self.recipes[pick].scenes)]

    def __iter__(self) -> Iterator[list[Key]]:
        step = self.first
        while self.count is None or step < self.first + self.count:
            yield self.keys(step)
            step += 1
