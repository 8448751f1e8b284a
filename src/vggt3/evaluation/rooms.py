"""``rooms-v1``: which procedural scenes the exam consists of.

The file beside this one is the exam. It names every setting of the scenes, so that later changes
of the training's defaults move nothing, and the scenes that were accepted; ``experiments/
freeze_rooms.py`` wrote it. Pictures come from the CPU's renderer alone, whose numbers the file
pins: where those no longer hold, a new version of the exam is due.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from vggt3 import checks
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.overlap import pairwise_overlap
from vggt3.data.procedural.render import Renderer, render, render_depth
from vggt3.data.procedural.scene import SceneParameters
from vggt3.data.procedural.scenes import draw_scene
from vggt3.geometry.camera import camera_centres, normalise_to_first, relative_poses
from vggt3.geometry.rotation import rotation_angle
from vggt3.metrics import PoseAccuracy, sideways, still_baseline

ROOMS = Path(__file__).with_name("rooms-v1.yaml")
"""The exam that ships."""

LATER: Mapping[str, Any] = {
    "clutter": (0, 0),
    "thin": (0, 0),
    "repeated": 0.0,
    "weak": 0.0,
    "glossy": 0.0,
    "turns": 0.0,
    "advances": 0.0,
    "jpeg": None,
}
"""Knobs that came after the exam, at the values that leave its scenes as they were."""

SEED_BITS = 96
"""Every exam's seed is at least 2^this; a seed of training, validation or test is below it."""
MOST_VIEWS = 24
"""Views of a large scene, evenly spaced, whose pairs its statistics are taken over."""
PIN_VIEWS = 4
"""First views of a scene whose pictures are pinned."""


@dataclass(frozen=True)
class ExamScene:
    """One scene of an exam: photos as a camera would store them, and the truth."""

    index: int
    """Place in the seed's endless sequence."""
    images: Tensor
    """[V, 3, H, W] uint8 RGB."""
    depth: Tensor
    """[V, H, W] float32 along z, metres; 0 is unknown (sky)."""
    camera_from_world: Tensor
    """[V, 3, 4] OpenCV axes, metres; the world is the first view's camera frame."""
    intrinsics: Tensor
    """[V, 3, 3] pixels, origin at the corner of the top-left pixel."""


@dataclass(frozen=True)
class SceneStatistics:
    """How hard a scene is, over the pairs of (at most 24 of) its views."""

    overlap: float
    """Median over ordered pairs i ≠ j of the share of view i that view j sees too."""
    least_overlap: float
    """The least of them."""
    rotation_deg: float
    """Median angle between two cameras."""
    still: float
    """Share of pairs whose baseline is under 1 % of the scene's median depth."""
    trivial: float
    """AUC@30 of identity rotations and sideways steps, percent."""


@dataclass(frozen=True)
class Acceptance:
    """Which drawn scenes a set takes; bounds on :class:`SceneStatistics`."""

    overlap: tuple[float, float] = (0.0, 1.0)
    rotation_deg: float = 0.0
    """At least."""
    least_overlap: float = 0.0
    """At least."""

    def holds(self, found: SceneStatistics) -> bool:
        """Whether a scene belongs to the set."""
        low, high = self.overlap
        return (
            low <= found.overlap <= high
            and found.rotation_deg >= self.rotation_deg
            and found.least_overlap >= self.least_overlap
        )


@dataclass(frozen=True)
class RoomSet:
    """One set of an exam."""

    name: str
    seed: int
    config: ProceduralConfig
    accept: Acceptance
    scenes: tuple[int, ...]
    """Indices of the accepted scenes, in the order that they are scored in."""
    statistics: Mapping[str, float]
    """Over the set, as it was frozen; see :func:`summarised`."""
    pinned: tuple[tuple[float, ...], ...]
    """:func:`fingerprint` of the first scenes."""

    def draw(self, index: int) -> SceneParameters:
        """Scene ``index`` of the set's sequence."""
        return draw_scene(self.config, self.seed, index)


@dataclass(frozen=True)
class Exam:
    """A frozen exam."""

    name: str
    samples: int
    """Rays a pixel."""
    sets: Mapping[str, RoomSet]
    digest: str
    """SHA-256 of the file."""

    def choose(self, name: str) -> RoomSet:
        """The set of that name.

        Raises:
            UsageError: there is none; lists them.
        """
        return self.sets[checks.choose("--set", name, self.sets)]

    def scene(
        self,
        room_set: RoomSet,
        index: int,
        device: torch.device | str = "cpu",
        renderer: Renderer = "torch",
    ) -> ExamScene:
        """Render a scene. Only the CPU's plain torch is canonical."""
        return photographed(room_set.draw(index), index, self.samples, device, renderer)


@torch.no_grad()
def photographed(
    parameters: SceneParameters,
    index: int,
    samples: int,
    device: torch.device | str = "cpu",
    renderer: Renderer = "torch",
) -> ExamScene:
    """One drawn scene rendered, its colours in 8 bits; the result lies on the CPU."""
    batch = render(parameters.to(device), samples=samples, renderer=renderer)
    return ExamScene(
        index,
        (batch.images[0] * 255).round().to("cpu", torch.uint8),
        batch.depth[0].cpu(),
        # From the parameters, so that every device gets the same truth.
        normalise_to_first(parameters.camera_from_world)[0],
        parameters.intrinsics[0],
    )


def some_views(parameters: SceneParameters, which: slice) -> SceneParameters:
    """Some of a scene's views; the sensor's noise stays with a view only from the first on."""
    return replace(
        parameters,
        camera_from_world=parameters.camera_from_world[:, which],
        intrinsics=parameters.intrinsics[:, which],
        photometry=parameters.photometry[:, which],
    )


@torch.no_grad()
def scene_statistics(parameters: SceneParameters) -> SceneStatistics:
    """Overlap, rotation and what the trivial guess scores, from depth alone."""
    every = -(-parameters.views // MOST_VIEWS)
    shown = some_views(parameters, slice(None, None, every))
    depth = render_depth(shown)
    pose, count = shown.camera_from_world, shown.views
    first, second = torch.triu_indices(count, count, 1)
    overlap = pairwise_overlap(depth, shown.intrinsics, pose)[0][~torch.eye(count).bool()]
    angle = rotation_angle(relative_poses(pose)[0, first, second, :, :3]).rad2deg()
    truth = normalise_to_first(pose)
    metric = PoseAccuracy()
    metric.update(sideways(truth), truth, still_baseline(depth, depth > 0))
    found = metric.compute()
    return SceneStatistics(
        overlap=float(overlap.median()),
        least_overlap=float(overlap.min()),
        rotation_deg=float(angle.median()),
        still=float(found["still"]) / len(first),
        trivial=float(found["auc@30"]),
    )


def summarised(found: list[SceneStatistics]) -> dict[str, float]:
    """A set's statistics: medians over its scenes, means for ``still`` and ``trivial``."""
    values = torch.tensor([[getattr(s, f.name) for f in fields(s)] for s in found]).double()
    middle = dict(zip([f.name for f in fields(SceneStatistics)], values.quantile(0.5, 0).tolist()))
    means = {"still": float(values[:, 3].mean()), "trivial": float(values[:, 4].mean())}
    return {name: round(value, 4) for name, value in {**middle, **means}.items()}


def fingerprint(room_set: RoomSet, samples: int, index: int) -> tuple[float, ...]:
    """What pins a scene: mean and deviation of the first views' photos (in [0, 1]) and of their
    depth (m), and the last of these cameras' centre in the first one's frame (m)."""
    shown = some_views(room_set.draw(index), slice(PIN_VIEWS))
    scene = photographed(shown, index, samples)
    images, depth = scene.images.double() / 255, scene.depth[scene.depth > 0].double()
    centre = camera_centres(scene.camera_from_world[-1].double())
    found = [images.mean(), images.std(), depth.mean(), depth.std(), *centre]
    return tuple(round(float(value), 6) for value in found)


def read_exam(path: Path | str = ROOMS) -> Exam:
    """The exam in a file.

    Raises:
        DataError: not an exam, or settings that this version does not know.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        sets = {
            str(name): _room_set(str(name), dict(content["look"]), entry)
            for name, entry in content["sets"].items()
        }
        return Exam(str(content["name"]), int(content["samples"]), sets, _digest(text))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        checks.fail(str(path), "be an exam", checks.reason(error), error=checks.DataError)


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _room_set(name: str, look: dict[str, Any], entry: Mapping[str, Any]) -> RoomSet:
    given: dict[str, Any] = {**LATER, **look, **entry["look"]}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    accept = entry["accept"]
    return RoomSet(
        name=name,
        seed=int(entry["seed"]),
        config=ProceduralConfig(**values),
        accept=Acceptance(
            overlap=(float(accept["overlap"][0]), float(accept["overlap"][1])),
            rotation_deg=float(accept["rotation_deg"]),
            least_overlap=float(accept["least_overlap"]),
        ),
        scenes=tuple(int(n) for n in entry["scenes"]),
        statistics={str(k): float(v) for k, v in entry["statistics"].items()},
        pinned=tuple(tuple(float(x) for x in row) for row in entry["pinned"]),
    )
