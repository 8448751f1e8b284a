"""More photos for a scene whose first ones are gone: an approximation, and what exactly it is.

Layer by layer, the new photos' tokens write once, against the settled state as it is, and the
state takes one step (:meth:`vggt3.attention.base.Backend.extend`): of fast weights a step of the
same rule, as long as the new tokens' share of all tokens written so far; sums and lists simply
grow, which weighs by share of itself. The new photos then read the new state on their way to the
next layer. The old ones do not: their camera tokens and cameras stay as they were. The camera
head runs over the old and new camera tokens, and its answers for the new ones are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vggt3 import checks
from vggt3.inference.camera_gap import CameraGap, camera_gap, extent_of
from vggt3.inference.identity import identity_of
from vggt3.inference.mapping import LIMIT, check_growth, familiarity, tokens_of
from vggt3.inference.options import RunOptions
from vggt3.inference.recall import Familiarity
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import Taken, take
from vggt3.io.sources import Source
from vggt3.model.scene import Conduct, Memory, Observer, Trunk
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
        InputError: nothing readable, a scene of another model or with a survey, a memory beyond
            ``limit``.
    """
    scene.identity.hold(identity_of(model))
    taken = take(views, long_side or scene.record.get("long_side") or model.config.long_side)
    return extend_taken(SceneEngine(model, options), scene, taken, limit)


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
    scene.identity.hold(engine.identity)
    check_extensible(scene)
    check_growth(engine, scene, taken.sizes, limit)
    plan, model = engine.plan(taken.views), engine.model
    tokens = tokens_of(model, taken.sizes)
    old = engine.fit(scene.memory)
    conduct = Conduct(
        keep=plan.keep,
        ahead=True,
        observe=observe,
        feature=lambda chunk, slot, tokens: None,
    )
    chunked = taken.views.chunked(plan.chunk)
    trunk = model.read(chunked, conduct, old, share=share_of(scene, tokens))
    camera_tokens = torch.cat([old.camera_tokens, trunk.camera_tokens.to(old.camera_tokens)], 1)
    memory = Memory(trunk.states, camera_tokens, old.plans)
    pose = model.poses(Trunk((), camera_tokens, trunk.states))[-1][0, len(scene) :]  # [N, 9]
    new = engine.decode(pose.cpu(), taken.sizes)
    cameras = Cameras(
        torch.cat([scene.cameras.camera_from_world, new.camera_from_world]),
        torch.cat([scene.cameras.intrinsics, new.intrinsics]),
        (*scene.cameras.sizes, *new.sizes),
    )
    marks = familiarity(engine, memory, taken.views)
    known = len(scene) / (len(scene) + len(taken.names))
    own = known * scene.familiarity.own + (1 - known) * marks.own
    extensions = [*scene.record.get("extensions", []), len(taken.names)]
    return replace(
        scene,
        memory=memory,
        cameras=cameras,
        names=(*scene.names, *_new_names(scene.names, taken.names, len(extensions))),
        original_sizes=(*scene.original_sizes, *taken.original_sizes),
        tokens=scene.tokens + tokens,
        familiarity=Familiarity(own, marks.elsewhere),
        record={**scene.record, "extensions": extensions},
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


def _new_names(old: Sequence[str], new: Sequence[str], extension: int) -> list[str]:
    """The new names, in a folder of their own where one of them is known already."""
    known = set(old)
    return list(new) if not known & set(new) else [f"extension-{extension}/{n}" for n in new]


@dataclass(frozen=True)
class Distance:
    """How far an extended scene is from the one that all photos at once make."""

    states: float
    """Relative L2 distance of the settled states, root mean square over their tensors."""
    cameras: CameraGap
    """Of the new photos' cameras."""

    def describe(self) -> str:
        """One line for people."""
        return f"states {self.states:.3f} relative; the new photos: {self.cameras.describe()}"


def distance(extended: SceneMemory, at_once: SceneMemory, new: int) -> Distance:
    """Compare two scenes of the same photos in the same order, of which the last ``new`` were
    added. Both worlds are the first photo's camera, so nothing is aligned."""
    gaps = []
    for mine, other in zip(extended.memory.states, at_once.memory.states, strict=True):
        for name, tensor in other.tensors.items():
            wide = tensor.double()
            away = (mine[name].to(tensor.device).double() - wide).norm()
            gaps.append(away / wide.norm().clamp(min=1e-30))
    ours, theirs = (scene.cameras.camera_from_world for scene in (extended, at_once))
    gap = camera_gap(ours[-new:], theirs[-new:], extent_of(theirs))
    return Distance(float(torch.stack(gaps).square().mean().sqrt()), gap)
