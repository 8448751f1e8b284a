"""What procedural scenes may look like: every knob of their difficulty."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vggt3 import checks

PATHS = ("orbits", "walks", "scattered", "turns", "advances")
"""The weights of the ways that cameras go."""
SHARES = (
    "outdoors", "abstract", "photos", "duplicates", "one_camera", "repeated", "weak", "glossy",
)  # fmt: skip
LEAST = (
    *((name, 0) for name in ("furniture", "boxes", "balls", "cylinders", "roll_deg", "spread")),
    *((name, 0) for name in ("exposure", "white_balance", "noise", "blur")),
    ("materials", 1),
)
RANGES = (("fov_deg", 10, 140), ("jpeg", 1, 100), ("clutter", 0, 100), ("thin", 0, 100))


@dataclass(frozen=True)
class ProceduralConfig:
    """Knobs of the procedural scenes. The defaults are the training mix."""

    views: int = 8
    """Photos a scene."""
    size: tuple[int, int] = (168, 168)
    """Image height and width in pixels."""
    outdoors: float = 0.3
    """Share of scenes that are yards: ground, façades, trees, sky without depth."""
    abstract: float = 0.1
    """Share of scenes that are heaps of solids in mid-air inside a room."""
    furniture: tuple[int, int] = (5, 14)
    """Fewest and most pieces of furniture a scene."""
    clutter: tuple[int, int] = (0, 0)
    """Fewest and most small things that lie about besides."""
    thin: tuple[int, int] = (0, 0)
    """Fewest and most thin things besides: wires, poles, racks, branches."""
    boxes: int = 72
    """Boxes a scene at most (a table has five)."""
    balls: int = 14
    """Balls and ellipsoids a scene at most."""
    cylinders: int = 18
    """Cylinders a scene at most."""
    materials: int = 32
    """Materials a scene at most; what comes later wears one of them again."""
    repeated: float = 0.0
    """Share of the surfaces that wear a material which the scene has already."""
    weak: float = 0.0
    """Share of the materials with hardly any texture."""
    glossy: float = 0.0
    """Share of the materials with strong highlights."""
    photos: float = 0.0
    """Share of the materials that wear a photo of --data.textures; 0 is half of them."""
    bank: int = 0
    """Photos in the bank."""
    fov_deg: tuple[float, float] = (45.0, 80.0)
    """Least and greatest field of view along the longer side, degrees."""
    one_camera: float = 0.5
    """Share of scenes whose photos all have one field of view."""
    roll_deg: float = 6.0
    """Standard deviation of the cameras' roll, degrees."""
    orbits: float = 0.3
    """Weight of cameras around one object."""
    walks: float = 0.3
    """Weight of cameras along a path."""
    scattered: float = 0.4
    """Weight of cameras at any free place."""
    turns: float = 0.0
    """Weight of cameras that turn at one place: pure rotation."""
    advances: float = 0.0
    """Weight of cameras that go straight ahead, where they look."""
    spread: tuple[float, float] = (0.15, 1.0)
    """Least and greatest spread: 0 is all photos of one place from one side, 1 is all over."""
    overlap: tuple[float, float] | None = None
    """Least and greatest median pairwise overlap; scenes outside are drawn again (slower)."""
    duplicates: float = 0.0
    """Share of the views that nearly repeat another view."""
    exposure: float = 0.15
    """Standard deviation of the exposure between views, in stops."""
    white_balance: float = 0.04
    """Standard deviation of the log gains of red and blue between views."""
    noise: float = 0.012
    """Greatest standard deviation of the sensor's noise; each scene draws below it."""
    blur: float = 0.6
    """Greatest blur of a view, Gaussian sigma in pixels."""
    jpeg: tuple[int, int] | None = None
    """Least and greatest quality at which photos are compressed as JPEG does it, 1 to 100."""

    def __post_init__(self) -> None:
        checks.require(self.views >= 1, "--data.views", "be at least 1", self.views)
        for name in ("furniture", "clutter", "thin", "fov_deg", "spread", "overlap", "jpeg"):
            pair = getattr(self, name)
            if pair is not None:
                checks.require(pair[0] <= pair[1], f"--data.{name}", "be ordered low, high", pair)
        for name in SHARES:
            share = getattr(self, name)
            checks.require(0 <= share <= 1, f"--data.{name}", "be between 0 and 1", share)
        for name, low, high in RANGES:
            pair = getattr(self, name)
            if pair is not None:
                within = pair[0] >= low and pair[1] <= high
                checks.require(within, f"--data.{name}", f"lie between {low} and {high}", pair)
        for name, least in LEAST:
            value = getattr(self, name)
            low = min(value) if isinstance(value, tuple) else value
            told = f"be at least {least}, and finite"
            checks.require(least <= low < math.inf, f"--data.{name}", told, value)
        checks.require(
            min(self.size) >= 14, "--data.size", "be at least 14 pixels a side", self.size
        )
        weights = [getattr(self, name) for name in PATHS]
        checks.require(
            min(weights) >= 0 and sum(weights) > 0,
            f"--data.{', '.join(PATHS)}",
            "be at least 0, and not all be 0",
            weights,
        )
