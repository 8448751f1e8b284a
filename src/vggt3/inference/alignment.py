"""From a map's own frame to the user's: the similarity that known cameras determine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vggt3 import checks
from vggt3.geometry.alignment import Similarity, umeyama
from vggt3.geometry.camera import camera_centres, invert_pose
from vggt3.inference.camera_gap import angles_deg, extent_of
from vggt3.inference.scene_memory import SceneMemory
from vggt3.io.reference_cameras import ReferenceCameras
from vggt3.metrics.medians import median

ON_A_LINE = 1e-3
"""Centres whose second spread is less than this share of their first are on one line: what is
left of the spread is noise, and a turn about the line would be read from it."""
TURNED_DEG = 15.0
"""Median angle between aligned and known cameras from which a person is told: centres and
viewing directions then do not mean the same frame."""

GRID = 1e-4
"""Step of float32 at the reference's coordinates, over the extent of its centres, from which a
person is told."""


@dataclass(frozen=True)
class Alignment:
    """A similarity and how well it fits."""

    similarity: Similarity
    """From the map's world to the reference's."""
    photos: int
    """Photos that both have, and whose cameras are finite."""
    residual: float
    """Root mean square distance between aligned and known camera centres, reference's unit."""
    extent: float
    """Root mean square distance of the known centres from their mean, the same unit."""
    rotation_deg: float
    """Median angle between aligned and known cameras; the similarity is fitted to centres alone,
    so this says independently whether it holds."""
    metric: bool
    """Whether that unit is the metre."""
    largest: float
    """Of the known centres' coordinates, by size, the same unit."""
    ambiguous: tuple[str, ...] = ()
    """Names of the map's photos that could be several in the reference or in the map."""

    def describe(self) -> str:
        """One line for people."""
        unit = " m" if self.metric else ""
        share = 100 * self.residual / self.extent if self.extent else 0.0
        return (
            f"{self.photos} photos, residual {self.residual:.4g}{unit} ({share:.1f} % of their "
            f"extent) and {self.rotation_deg:.1f}°, scale {float(self.similarity.scale):.4g}"
        )

    def grid(self) -> str | None:
        """A line where the reference's coordinates are too large for float32 points, or None."""
        step = self.largest * torch.finfo(torch.float32).eps
        if step <= GRID * self.extent:
            return None
        unit = " m" if self.metric else ""
        return (
            f"points are float32 and the reference's coordinates so large ({self.largest:.4g}"
            f"{unit}) that points there lie {step:.2g}{unit} apart at least: take an offset from "
            "the reference's centres, and add it to what you read"
        )

    def unmatched(self) -> str | None:
        """A line about photos that took no part since their names could be several, or None."""
        if not self.ambiguous:
            return None
        return f"the reference leaves out {_told(self.ambiguous)}"

    def warning(self) -> str | None:
        """A line where known and aligned cameras look elsewhere, or None."""
        if self.rotation_deg < TURNED_DEG:
            return None
        return (
            f"the reference's cameras are turned from the map's by {self.rotation_deg:.0f}° "
            "(median) although their centres were aligned: do not trust the answers' orientation. "
            "Either the centres lie too nearly on a line, or the map is bad, or the reference has "
            "other axes than its format says"
        )


def align(scene: SceneMemory, reference: ReferenceCameras) -> Alignment:
    """Align the map's camera centres to known ones.

    Raises:
        DataError: fewer than three photos in common, or centres on one line.
    """
    ours, theirs = reference.matched(scene.names)
    unclear = tuple(reference.ambiguous(scene.names))
    centres = camera_centres(scene.cameras.camera_from_world.double())
    finite = [n for n, place in enumerate(ours) if bool(centres[place].isfinite().all())]
    ours, theirs = [ours[n] for n in finite], [theirs[n] for n in finite]
    name = f"reference '{reference.path}'"
    checks.require(
        len(ours) >= 3,
        name,
        "know at least 3 of the map's photos by their names",
        f"{len(ours)} (the map has {', '.join(scene.names[:2])}, …; the reference "
        f"{', '.join(reference.names[:2])}, …)" + (f"; {_told(unclear)}" if unclear else ""),
        error=checks.DataError,
    )
    source, target = centres[ours], reference.centres[theirs]
    for whose, points in ((f"the map's centres of photos in {name}", source), (name, target)):
        spread = torch.linalg.svdvals(points - points.mean(0))
        checks.require(
            float(spread[1]) > ON_A_LINE * float(spread[0]),
            whose,
            "not all lie on one line or in one place",
            f"{len(ours)} that do",
            error=checks.DataError,
        )
    found = umeyama(source, target)
    away = (found.apply(source) - target).square().sum(-1).mean().sqrt()
    known = invert_pose(reference.world_from_camera[theirs])
    moved = found.apply_to_cameras(scene.cameras.camera_from_world.double()[ours])
    turned = median(angles_deg(moved, known))
    return Alignment(
        found,
        len(ours),
        float(away),
        extent_of(known),
        turned,
        reference.metric,
        float(target.abs().max()),
        unclear,
    )


def _told(ambiguous: tuple[str, ...]) -> str:
    """How many names are ambiguous, and the first."""
    several = "s" if len(ambiguous) > 1 else ""
    such = f"such as '{ambiguous[0]}'" if several else f"'{ambiguous[0]}'"
    return f"{len(ambiguous)} photo{several} whose names are ambiguous ({such})"
