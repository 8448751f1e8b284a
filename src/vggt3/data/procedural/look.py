"""What procedural scenes look like, as the command line says it: the knobs and a folder."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from vggt3 import checks
from vggt3.data.procedural.bank import Loaded, load
from vggt3.data.procedural.config import ProceduralConfig

SHARE = 0.5
"""Of the materials that wear a photo where a folder is given and no share."""


@dataclass(frozen=True)
class Look(ProceduralConfig):
    """What scenes look like."""

    textures: Path | None = None
    """A folder of photos, subfolders too, for surfaces to wear."""
    bank: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require(
            self.photos == 0 or self.textures is not None, "--data.photos",
            "stand beside --data.textures", f"{self.photos} alone",
        )  # fmt: skip

    def dressed(self) -> tuple[ProceduralConfig, Loaded | None]:
        """What to draw scenes with, and the photos that they wear.

        Raises:
            DataError: ``textures`` is no folder or holds no usable photo.
        """
        given = {f.name: getattr(self, f.name) for f in fields(ProceduralConfig)}
        plain = ProceduralConfig(**given)
        if self.textures is None:
            return plain, None
        loaded = load(self.textures)
        share = self.photos or SHARE
        return replace(plain, photos=share, bank=loaded.bank.count), loaded
