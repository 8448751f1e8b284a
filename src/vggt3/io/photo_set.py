"""Photos as they enter the model: each at its own size, with what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vggt3.types import Views

Progress = Callable[[int, int], None]
"""Called with (done, total) as photos arrive."""


@dataclass(frozen=True)
class Photo:
    """One photo at the size the model sees it."""

    name: str
    """Distinct in its set, relative, with forward slashes."""
    image: Tensor
    """[3, h, w] uint8 RGB; h and w multiples of the patch. On torch's device ``meta``, where
    nothing is stored, if another process holds the pixels."""
    original_size: tuple[int, int]
    """(height, width) in pixels of the photo upright, before resizing."""
    path: Path
    """The file it came from (a video's frames share one)."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of ``image``."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class PhotoSet:
    """The photos of a scene, in the order they were named."""

    photos: tuple[Photo, ...]
    skipped: tuple[tuple[Path, str], ...] = ()
    """Files that could not be used, each with its reason."""
    held: tuple[int, ...] | None = None
    """Places of the photos whose pixels this process holds; None is all."""

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def names(self) -> tuple[str, ...]:
        """V names, all different."""
        return tuple(photo.name for photo in self.photos)

    @property
    def original_sizes(self) -> tuple[tuple[int, int], ...]:
        """V pairs (height, width) of the photos as read."""
        return tuple(photo.original_size for photo in self.photos)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """V pairs (height, width) at which the model sees the photos."""
        return tuple(photo.size for photo in self.photos)

    def views(self) -> Views:
        """The photos held here grouped by size, for the model; ids are places in this set."""
        if self.held is None:
            return Views.from_list([photo.image for photo in self.photos])
        return Views.from_share([self.photos[n].image for n in self.held], self.held, self.sizes)

    def skipped_line(self) -> str | None:
        """One line about what was skipped, or None where nothing was."""
        return skipped_line(self.skipped)


def skipped_line(skipped: Sequence[tuple[Path, str]]) -> str | None:
    """One line about files that cannot be used, each with its reason; None where there are none."""
    if not skipped:
        return None
    count = len(skipped)
    return f"skipped {count} file{'s' if count > 1 else ''}: {reasons(skipped)}"


def reasons(skipped: Sequence[tuple[Path, str]], most: int = 20) -> str:
    """The files and why, on one line, at most ``most`` of them."""
    shown = "; ".join(f"{path.name} ({why})" for path, why in skipped[:most])
    rest = len(skipped) - most
    return f"{shown}; and {rest} more" if rest > 0 else shown
