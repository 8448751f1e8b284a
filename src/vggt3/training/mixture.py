"""Data sets to learn from: views that see each other, and several sets mixed by weight."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from vggt3 import checks
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.scene import SceneBatch, SceneParameters, collate
from vggt3.data.readers.covisibility import Links, covisibility, frames_of
from vggt3.data.readers.layout import LAYOUTS, layout, read_scenes
from vggt3.data.readers.record import Need, Scene
from vggt3.evaluation.loading import load_views
from vggt3.geometry.camera import normalise_to_first
from vggt3.training.curriculum import Key, Recipe, RecipeScenes

PROCEDURAL = "procedural"
SOURCE, VIEWS = 0xDA7A, 0x71E5
"""Keep the streams that pick a batch's data set, and a scene's views, apart from all others."""
HELD_OUT_EVERY = 10
"""Of a data set without a test split, every tenth scene is held out."""
SILENT = 8
"""Scenes whose views are looked at without a word."""
NEEDS: tuple[Need, ...] = ("pose", "intrinsics", "depth")

Made = SceneParameters | SceneBatch
"""A scene, or a batch, that is yet to be rendered; or one that was read."""


@dataclass(frozen=True)
class Source:
    """A part of a mixture."""

    name: str
    """``procedural``, or a layout."""
    weight: float
    root: Path | None


def parse_sources(sets: str, root: str | None) -> tuple[Source, ...]:
    """``sevenscenes:2,procedural:1`` and the roots of those that are read.

    Raises:
        UsageError: an unknown name, a weight that is none, roots that do not go with them.
    """
    roots = [part.strip() for part in (root or "").split(",") if part.strip()]
    parts: list[tuple[str, float]] = []
    for part in sets.split(","):
        named = re.fullmatch(r"\s*(\w+)\s*(?::\s*(\d+(?:\.\d*)?|\.\d+))?\s*", part)
        told = "look like sevenscenes or sevenscenes:2,procedural:1"
        checks.require(named is not None, "--data", told, f"'{sets}'")
        assert named is not None
        name = checks.choose("--data", named[1], [PROCEDURAL, *LAYOUTS])
        weight = float(named[2] or 1)
        checks.require(weight > 0, f"the weight of --data {name}", "be above 0", named[2])
        parts.append((name, weight))
    wanted = [name for name, _ in parts if name != PROCEDURAL]
    told = f"name a folder for each of: {', '.join(wanted) or 'nothing'}"
    checks.require(len(roots) == len(wanted), "--data.root", told, root or "none")
    left = iter(roots)
    return tuple(
        Source(name, weight, None if name == PROCEDURAL else Path(next(left)))
        for name, weight in parts
    )


@dataclass(frozen=True)
class ReadSet:
    """The scenes of one data set: those that are learned from, and those held out."""

    name: str
    learned: tuple[Scene, ...]
    held_out: tuple[Scene, ...]
    notes: tuple[str, ...]


@dataclass
class ReadSets:
    """Every part of a mixture; None stands for the procedural scenes."""

    parts: tuple[ReadSet | None, ...]
    weights: tuple[float, ...]
    least: float
    """Covisibility of views that are shown together."""
    cache: Path | None
    _links: dict[tuple[str, str, Path], Links] = field(default_factory=dict, repr=False)

    @property
    def described(self) -> str:
        """The mixture in words."""
        names = [PROCEDURAL if part is None else part.name for part in self.parts]
        told = [f"{name}:{weight:g}" for name, weight in zip(names, self.weights, strict=True)]
        return f"data {','.join(told)}, covisibility {self.least:g}"

    def check(
        self, recipes: Sequence[Recipe], say: Callable[[str], object] = lambda line: None
    ) -> list[str]:
        """Look at every scene once (which also fills the cache); what a person should know.

        ``say`` is told beforehand where that may take a while.

        Raises:
            DataError: a data set without a scene of enough views that see each other.
        """
        notes: list[str] = []
        count = sum(len(part.learned) + len(part.held_out) for part in self.parts if part)
        if count > SILENT:
            where = f"kept in {self.cache}" if self.cache else "not kept"
            say(f"looking at what the views of {count} scenes see of each other ({where})")
        most = max(recipe.views for recipe in recipes)
        for part in (part for part in self.parts if part is not None):
            notes += part.notes
            for kind, scenes in (("learn from", part.learned), ("hold out", part.held_out)):
                usable = self.usable(scenes, most)
                largest = max((self.links(scene).largest for scene in scenes), default=0)
                checks.require(
                    bool(usable),
                    f"--data {part.name}",
                    f"have a scene to {kind} with {most} views that see more than "
                    f"{self.least:g} of each other (--data.views, --data.covisibility)",
                    f"{largest} at the most",
                    error=checks.DataError,
                )
                if len(usable) < len(scenes):
                    few = f"{len(scenes) - len(usable)} of {len(scenes)} scenes to {kind}"
                    notes.append(f"{part.name}: {few} have too few such views and are left out")
        return notes

    def links(self, scene: Scene) -> Links:
        """What the frames of a scene see of each other."""
        key = (scene.dataset, scene.name, scene.views[0].file)
        if key not in self._links:
            self._links[key] = Links.of(covisibility(scene, self.cache), self.least)
        return self._links[key]

    def usable(self, scenes: Sequence[Scene], views: int) -> list[Scene]:
        """The scenes with enough views that see each other."""
        return [scene for scene in scenes if self.links(scene).largest >= views]


def read_sets(
    sources: Sequence[Source], least: float, cache: Path | None = None
) -> ReadSets | None:
    """The data sets of a mixture, listings read; None where all is procedural.

    Raises:
        DataError: a folder of another layout, or without depth or cameras.
    """
    if all(source.root is None for source in sources):
        return None
    if cache is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(home) / "vggt3" / "covisibility"
    parts = tuple(None if s.root is None else _read_set(s.name, s.root) for s in sources)
    return ReadSets(parts, tuple(source.weight for source in sources), least, cache)


def _read_set(name: str, root: Path) -> ReadSet:
    splits, notes = layout(name).splits, []
    learned = read_scenes(name, root, "train" if "train" in splits else "all", "--data.root")
    held: list[Scene] = []
    if "test" in splits:
        try:
            held = read_scenes(name, root, "test", "--data.root")
        except checks.DataError:
            held = []
    whole = [*learned, *held]
    notes += [note for scene in whole for note in scene.notes]
    known, known_held = ([_with_truth(scene) for scene in part] for part in (learned, held))
    if not any(scene.views for scene in (*known, *known_held)):
        whole[0].require(NEEDS, range(len(whole[0].views)))  # says what is missing
    before, after = (sum(len(s.views) for s in part) for part in (whole, [*known, *known_held]))
    if before > after:
        notes.append(f"{name}: {before - after} views without depth or camera are left out")
    learned, held = ([s for s in part if s.views] for part in (known, known_held))
    if "test" not in splits and len(learned) > 1:
        held = learned[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] or learned[-1:]
        learned = [scene for scene in learned if scene not in held]
    if not held or not learned:
        notes.append(f"{name}: nothing is held out, scores are of scenes that are learned from")
    return ReadSet(name, tuple(learned or held), tuple(held or learned), tuple(notes))


def _with_truth(scene: Scene) -> Scene:
    """The scene's views whose depth and camera are known."""
    return replace(scene, views=tuple(v for v in scene.views if not v.missing(NEEDS)))


class Mixture(Dataset[Made]):
    """Scene (recipe, index) of a seed: each batch is of one data set, drawn by weight."""

    def __init__(
        self,
        drawn: RecipeScenes,
        read: ReadSets,
        recipes: tuple[Recipe, ...],
        seed: int,
        held_out: bool = False,
    ) -> None:
        self.drawn, self.read, self.recipes, self.seed = drawn, read, recipes, seed
        self.held_out = held_out
        self.room = max(recipe.scenes for recipe in recipes)

    def __getitem__(self, key: Key) -> Made:
        kind, index = key
        place = Draw(SOURCE, self.seed, index // self.room).weighted(self.read.weights)
        part = self.read.parts[place]
        if part is None:
            return self.drawn[key]
        recipe, draw = self.recipes[kind], Draw(VIEWS, self.seed, index)
        known = part.held_out if self.held_out else part.learned
        scene = draw.choice(self.read.usable(known, recipe.views))
        frames = frames_of(scene)
        chosen = self.read.links(scene).sample(recipe.views, draw)
        return read_batch(scene, [frames[n] for n in chosen], recipe.size)


def read_batch(scene: Scene, which: Sequence[int], size: tuple[int, int]) -> SceneBatch:
    """Views of one scene as a batch of one, of the given (height, width), in the scene's unit."""
    loaded = load_views(scene, which, max(size), NEEDS, size)
    assert loaded.poses is not None and loaded.intrinsics is not None
    assert loaded.depth is not None
    depth = torch.stack(loaded.depth)
    return SceneBatch(
        images=(torch.stack(loaded.images).float() / 255)[None],
        depth=depth[None],
        valid=(depth > 0)[None],
        camera_from_world=normalise_to_first(loaded.poses).float()[None],
        intrinsics=loaded.intrinsics.float()[None],
    )


def joined(scenes: Sequence[Made]) -> Made:
    """One batch of scenes that were all drawn, or all read."""
    read = [scene for scene in scenes if isinstance(scene, SceneBatch)]
    if not read:
        return collate([scene for scene in scenes if isinstance(scene, SceneParameters)])
    parts = {f.name: torch.cat([getattr(s, f.name) for s in read]) for f in fields(SceneBatch)}
    return SceneBatch(**parts)
