"""More photos for a scene whose first ones are gone: an approximation, and what exactly it is.

Layer by layer, the new photos' tokens write once, against the settled state as it is, and the
state takes one step (:meth:`vggt3.attention.base.Backend.extend`): of fast weights a step of the
same rule, as long as the new tokens' share of all tokens written so far; sums and lists simply
grow, which weighs by share of itself. The new photos then read the new state on their way to the
next layer. The old ones do not: their camera tokens and cameras stay as they were. The camera
head runs over the old and new camera tokens, and its answers for the new ones are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.geometry.alignment import Similarity
from vggt3.geometry.camera import camera_centres
from vggt3.inference.camera_gap import CameraGap, camera_gap, extent_of
from vggt3.inference.engine import Onto
from vggt3.inference.identity import ModelIdentity
from vggt3.inference.mapping import LIMIT, CamerasOnly, check_growth, familiarity, tokens_of
from vggt3.inference.options import RunOptions
from vggt3.inference.recall import Familiarity
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import Taken, take
from vggt3.io.sources import Source, find_photos, names_video, relative_names
from vggt3.model.scene import Observer
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Cameras, Views


def extend(
    model: VGGT3,
    scene: SceneMemory,
    views: Source | Views,
    options: RunOptions | None = None,
    *,
    limit: str = LIMIT,
    long_side: int | None = None,
) -> SceneMemory:
    """A new scene that holds ``views`` too; ``scene`` stays as it is. See the module's text.

    Args:
        model: the one that the scene was mapped with.
        scene: from :func:`vggt3.map` or a file.
        views: photos, or :class:`vggt3.Views` of B = 1.
        options: device, precision, memory.
        limit: most bytes that the new scene's memory may take.
        long_side: of photos in the model; that of the mapped ones if not given.

    Raises:
        InputError: nothing readable, a photo whose name is in the scene already, a scene of
            another model, of other options that change a step, or with a survey, a memory beyond
            ``limit``.
    """
    engine = SceneEngine(model, options)
    _check_model(scene, engine.identity)
    if not isinstance(views, Views):
        check_names(scene, views)
    taken = take(views, long_side or scene.record.get("long_side") or model.config.long_side)
    return extend_taken(engine, scene, taken, limit)


def share_of(scene: SceneMemory, tokens: int) -> float:
    """Share that ``tokens`` new ones have of all that the scene then holds."""
    return tokens / (scene.tokens + tokens)


@torch.inference_mode()
def extend_taken(
    engine: SceneEngine,
    scene: SceneMemory,
    taken: Taken,
    limit: str = LIMIT,
    observe: Observer = lambda stage, done, total: None,
) -> SceneMemory:
    """:func:`extend` for photos that were read, on an engine."""
    _check_model(scene, engine.identity)
    check_growth(engine, scene, taken.sizes, limit)
    plan = engine.plan(taken.views, scene.cameras.sizes)  # before the scene goes to the device
    tokens = tokens_of(engine.model, taken.sizes)
    onto = Onto(engine.fit(scene.memory), scene.cameras.sizes, share_of(scene, tokens))
    sink = CamerasOnly()
    outcome = engine.run(taken.views, sink, observe, plan, onto)
    memory, new = outcome.memory, sink.found
    cameras = Cameras(
        torch.cat([scene.cameras.camera_from_world, new.camera_from_world]),
        torch.cat([scene.cameras.intrinsics, new.intrinsics]),
        (*scene.cameras.sizes, *new.sizes),
    )
    marks = familiarity(engine, memory, taken.views)
    known = len(scene) / (len(scene) + len(taken.names))
    own = known * scene.familiarity.own + (1 - known) * marks.own
    extensions = [*scene.record.get("extensions", []), len(taken.names)]
    notes = [*scene.record.get("notes", []), *outcome.notes]
    return replace(
        scene,
        memory=memory,
        cameras=cameras,
        names=(*scene.names, *_new_names(scene.names, taken.names, len(extensions))),
        original_sizes=(*scene.original_sizes, *taken.original_sizes),
        tokens=scene.tokens + tokens,
        familiarity=Familiarity(own, marks.elsewhere),
        record={
            **scene.record,
            "extensions": extensions,
            **({"notes": notes} if notes else {}),
        },
    )


def check_extensible(scene: SceneMemory) -> None:
    """Raise UsageError for a scene whose survey chose among views that are gone."""
    surveyed = any(plan is not None for plan in scene.memory.plans)
    checks.require(
        not surveyed,
        "a scene to extend",
        "be mapped with a backend that needs no survey of all photos at once",
        f"{scene.identity.attention} with one; map all photos together",
    )


def check_rule(scene: SceneMemory, found: ModelIdentity, but: Sequence[str] = ("sweeps",)) -> None:
    """Raise UsageError for a model that would step by another rule than the scene's states did.

    Options may differ that leave a step as it is: kernels, and sweeps, since an extension is one
    step; with ``but=()`` kernels alone.
    """
    for layer, option, mine, other in scene.identity.differences(found):
        checks.require(
            option in but,
            f"--attention.{option}",
            f"be the {json.dumps(mine)} that layer {layer} of the scene was mapped with",
            json.dumps(other),
        )


def _check_model(scene: SceneMemory, found: ModelIdentity) -> None:
    """Hold a scene and the model that is to extend it to each other."""
    scene.identity.hold(found)
    check_extensible(scene)
    check_rule(scene, found)


def check_names(scene: SceneMemory, source: Source) -> None:
    """Raise DataError for photos that the scene holds already, by their names, before one is read.

    A video's frames are named by their places in it, and tell nothing.
    """
    if names_video(source):
        return
    known = set(scene.names)
    there = [name for name in relative_names(find_photos(source)) if name in known]
    more = f" and {len(there) - 1} more" if len(there) > 1 else ""
    checks.require(
        not there,
        "photos to add",
        "have names that the scene does not know (rename them, or leave them out)",
        f"'{there[0]}'{more} that it holds already" if there else "",
        error=checks.DataError,
    )


def _new_names(old: Sequence[str], new: Sequence[str], extension: int) -> list[str]:
    """The new names, in a folder of their own where one of them is known already: tensors and a
    video's frames are named by their places. Files are looked at before (:func:`check_names`)."""
    known = set(old)
    return list(new) if not known & set(new) else [f"extension-{extension}/{n}" for n in new]


@dataclass(frozen=True)
class Distance:
    """How far an extended scene is from the one that all photos at once make."""

    states: float
    """Relative L2 distance of the settled states, root mean square over their tensors; nan for
    lists of photos of several sizes, whose order differs."""
    cameras: CameraGap
    """Of the new photos' cameras, in one unit."""
    scale: float
    """Unit of the extended scene in that of all at once."""

    def describe(self) -> str:
        """One line for people."""
        states = f"states {self.states:.3f} relative; " if math.isfinite(self.states) else ""
        return f"{states}scale {self.scale:.3f}; the new photos: {self.cameras.describe()}"


def distance(extended: SceneMemory, at_once: SceneMemory, new: int) -> Distance:
    """Compare two scenes of the same photos in the same order, of which the last ``new`` were
    added. Both worlds are the first photo's camera, but each has a unit of its own."""
    gaps = []
    for mine, other in zip(extended.memory.states, at_once.memory.states, strict=True):
        for name, tensor in other.tensors.items():
            wide = tensor.double()
            away = (mine[name].to(tensor.device).double() - wide).norm()
            gaps.append(away / wide.norm().clamp(min=1e-30))
    ordered = at_once.bounded or len(set(at_once.cameras.sizes)) == 1
    states = float(torch.stack(gaps).square().mean().sqrt()) if ordered else math.nan
    ours, theirs = (scene.cameras.camera_from_world.double() for scene in (extended, at_once))
    motion = scaling(ours, theirs)
    moved = motion.apply_to_cameras(ours)
    gap = camera_gap(moved[-new:], theirs[-new:], extent_of(theirs))
    return Distance(states, gap, float(motion.scale))


def scaling(
    ours: Tensor,  # [V, 3, 4] camera_from_world
    theirs: Tensor,  # [V, 3, 4] camera_from_world of the same photos, the world of the same axes
) -> Similarity:
    """What brings one world's unit to another's: the least squares scale of the centres. No turn:
    both worlds are the first photo's camera, and noise in the centres would be read as one."""
    a, b = camera_centres(ours), camera_centres(theirs)
    scale = (a * b).sum() / a.square().sum()
    known = bool(scale.isfinite()) and float(scale) > 0
    unit = scale if known else torch.ones_like(scale)
    return Similarity(unit, torch.eye(3, dtype=unit.dtype), torch.zeros(3, dtype=unit.dtype))
