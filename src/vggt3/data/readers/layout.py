"""A layout by its name, and what a folder of another layout looks like."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vggt3 import checks
from vggt3.data.readers.record import Scene

NAMES = (
    "sevenscenes",
    "nrgbd",
    "dtu",
    "eth3d",
    "wayspots",
    "sintel",
    "bonn",
    "kitti",
    "co3d",
    "scannet",
    "tum",
    "captures",
    "nerfstudio",
    "colmap",
)
LAYOUTS: Mapping[str, str] = {name: f"vggt3.data.readers.{name}" for name in NAMES}
"""Name → module, in the order in which a folder is looked at."""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on a disk."""

    name: str
    title: str
    """As its makers write it."""
    shape: str
    """What the folder holds, for messages."""
    marks: tuple[str, ...]
    """Globs; a folder in which one of them finds something looks like this layout."""
    read: Callable[[Path, str], list[Scene]]
    """Folder and split → scenes; opens listings and no images."""
    splits: tuple[str, ...] = ("all",)
    """What ``read`` knows; the first is the default."""

    def looks_like(self, folder: Path) -> bool:
        """Whether the folder seems to be of this layout."""
        return any(next(folder.glob(mark), None) is not None for mark in self.marks)


def layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UsageError: there is none; lists them.
    """
    module = importlib.import_module(LAYOUTS[checks.choose("data set", name, LAYOUTS)])
    found: Layout = module.LAYOUT
    return found


def recognised(folder: Path) -> Layout | None:
    """The first layout that a folder looks like."""
    every = (layout(name) for name in LAYOUTS)
    return next((found for found in every if found.looks_like(folder)), None)


def read_scenes(
    name: str | None, folder: Path | str, split: str | None = None, flag: str = "--data"
) -> list[Scene]:
    """The scenes of a data set.

    Args:
        name: of the layout; what the folder looks like if not given.
        folder: where it lies.
        split: train, test or all, as far as the layout has them.
        flag: what the folder was given by, for messages.

    Raises:
        DataError: no such folder, another layout (says which it looks like), nothing in it.
        UsageError: no such layout or split.
    """
    folder, what = Path(folder), f"{flag} '{folder}'"
    chosen = None if name is None else layout(name)
    got = "a file" if folder.exists() else "no such folder"
    checks.require(folder.is_dir(), what, "be a folder", got, error=checks.DataError)
    seen = chosen if chosen is not None and chosen.looks_like(folder) else recognised(folder)
    chosen = chosen or seen
    if chosen is None or chosen is not seen:
        wanted = "a known layout" if chosen is None else f"{chosen.title} ({chosen.shape})"
        held = sorted(entry.name for entry in folder.iterdir())[:4]
        strange = f"a folder with {', '.join(held) or 'nothing'}"
        looks = strange if seen is None else f"a folder that looks like {seen.title} ({seen.name})"
        checks.fail(what, f"hold {wanted}", looks, error=checks.DataError)
    split = split or chosen.splits[0]
    checks.choose("split", split, chosen.splits)
    found = chosen.read(folder, split)
    scenes = [scene for scene in found if scene.views]
    lost = [note for scene in found if not scene.views for note in scene.notes or _empty(scene)]
    told = f"hold scenes of {chosen.title}, split {split}"
    got = "; ".join(["none", *lost[:3]])
    checks.require(bool(scenes), what, told, got, error=checks.DataError)
    # Said by the first: a scene that is not there says nothing.
    return [replace(scenes[0], notes=(*lost, *scenes[0].notes)), *scenes[1:]]


def _empty(scene: Scene) -> tuple[str, ...]:
    return (f"{scene.dataset} {scene.name}: no view that can be read, left out",)
