"""What procedural scenes may look like: every knob of their difficulty."""

from __future__ import annotations

from dataclasses import dataclass

from vggt3 import checks


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
    boxes: int = 72
    """Boxes a scene at most (a table has five)."""
    balls: int = 14
    """Balls and ellipsoids a scene at most."""
    cylinders: int = 18
    """Cylinders a scene at most."""
    materials: int = 32
    """Materials a scene at most; what comes later wears one of them again."""
    photos: float = 0.0
    """Share of the materials that wear a photo of the bank (``--data.textures``)."""
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

    def __post_init__(self) -> None:
        checks.require(self.views >= 1, "--data.views", "be at least 1", self.views)
        for name in ("furniture", "fov_deg", "spread", "overlap"):
            pair = getattr(self, name)
            if pair is not None:
                checks.require(pair[0] <= pair[1], f"--data.{name}", "be ordered low, high", pair)
        for name in ("outdoors", "abstract", "photos", "duplicates", "one_camera"):
            share = getattr(self, name)
            checks.require(0 <= share <= 1, f"--data.{name}", "be between 0 and 1", share)
        checks.require(
            self.fov_deg[0] >= 10 and self.fov_deg[1] <= 140,
            "--data.fov_deg",
            "lie between 10 and 140",
            self.fov_deg,
        )
        checks.require(
            min(self.size) >= 14, "--data.size", "be at least 14 pixels a side", self.size
        )
        checks.require(
            self.orbits + self.walks + self.scattered > 0,
            "--data.orbits, walks, scattered",
            "not all be zero",
            "0",
        )
