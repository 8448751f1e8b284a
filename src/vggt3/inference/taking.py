"""Photos however they are given: files to read, or tensors."""

from __future__ import annotations

from dataclasses import dataclass

from vggt3 import checks
from vggt3.io.photo_set import PhotoSet
from vggt3.io.sources import Source
from vggt3.io.views import read_views
from vggt3.types import Views


@dataclass(frozen=True)
class Taken:
    """Photos as the model sees them, with what is known of them."""

    views: Views
    names: tuple[str, ...]
    original_sizes: tuple[tuple[int, int], ...]
    """(height, width) of each photo as read."""

    @classmethod
    def of(cls, photos: PhotoSet) -> Taken:
        """Photos that were read."""
        return cls(photos.views(), photos.names, photos.original_sizes)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in the model, in the photos' order."""
        by_id = {i: group.size for group in self.views.groups for i in group.ids}
        return [by_id[i] for i in range(self.views.total)]


def take(photos: Source | Views, long_side: int) -> Taken:
    """Read photos, or name tensors ``view 0``, ``view 1``, …

    Raises:
        InputError: nothing readable; views of several scenes side by side.
    """
    if not isinstance(photos, Views):
        return Taken.of(read_views(photos, long_side=long_side))
    checks.require(photos.batch == 1, "views", "be of one scene (B = 1)", photos.batch)
    held = len(photos.ids)
    checks.require(held == photos.total, "views", f"hold all {photos.total} of the scene", held)
    names = tuple(f"view {n}" for n in range(photos.total))
    sizes = {i: group.size for group in photos.groups for i in group.ids}
    return Taken(photos, names, tuple(sizes[i] for i in range(photos.total)))
