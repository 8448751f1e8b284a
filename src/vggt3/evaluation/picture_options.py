"""How an exam's pictures are made; loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vggt3 import checks


@dataclass(frozen=True)
class PictureOptions:
    """Where an exam's pictures come from; the same scores whatever is said but fast_pictures."""

    cache: Path | None = None
    """A folder that keeps the rendered scenes (1.6 MB for 8 views) for the next run."""
    workers: int = -1
    """Processes that render ahead; -1 is all cores but one beside a GPU, else none."""
    fast_pictures: bool = False
    """Render on the model's CUDA device; the scores then are not canonical."""

    def __post_init__(self) -> None:
        checks.require(self.workers >= -1, "--workers", "be at least -1", self.workers)
        checks.require(
            not (self.fast_pictures and self.cache is not None),
            "--cache",
            "hold canonical pictures only: leave out --fast-pictures",
            self.cache,
        )
