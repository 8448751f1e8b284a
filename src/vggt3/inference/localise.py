"""Where was this photo taken? A mapped scene answers, and is not changed by the question.

Photos only read the settled memory. Their cameras come from the camera head over [map's camera
tokens, one photo's], a sequence for each photo, so that no photo's answer depends on another's
(as in arXiv 2602.23361).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.geometry.alignment import Similarity
from vggt3.geometry.projection import unproject
from vggt3.geometry.rotation import nearest_rotation
from vggt3.inference.advice import MEMORY, SMALLER, give
from vggt3.inference.camera_gap import CameraGap, camera_gap, extent_of
from vggt3.inference.engine import PIXEL_CENTRE
from vggt3.inference.measure import patches, working_bytes
from vggt3.inference.options import RunOptions, show_bytes
from vggt3.inference.plan import CHUNKS, HEADS_AT_ONCE, SLACK
from vggt3.inference.recall import Recall
from vggt3.inference.recording import Graphs, Recorder
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import Taken, take
from vggt3.io.sources import Source
from vggt3.model.scene import Conduct, Observer, Trunk, whole
from vggt3.model.vggt3 import VGGT3
from vggt3.types import PATCH, Cameras, DenseView, ViewGroup, Views

HEAD_BYTES = 2**30
"""Most bytes that the camera head's sequences of one turn may take."""
FAST_TURN = 64
"""Photos that the fast camera head is asked about in one sequence."""
HEAD_WIDTHS = 18
"""Widths of a camera token that live at once in a block of the camera head."""
RECORDED = 8
"""One part in so many of the memory allowed is left to recordings of questions."""


MAPS = ("depth", "depth_confidence", "points", "points_confidence")
"""A view's maps, in the order of DenseView."""


@dataclass(frozen=True)
class Answer:
    """What a scene says of one photo."""

    index: int
    """Place among the photos asked about."""
    camera_from_world: Tensor
    """[3, 4] OpenCV axes; the world and its unit are the map's (the reference's where aligned, in
    float64 then: a surveyor's coordinates have seven digits before the metres')."""
    intrinsics: Tensor
    """[3, 3] pixels at the size that the model saw."""
    size: tuple[int, int]
    """(height, width) that the model saw."""
    confidence: float
    """In (0, 1): how likely it is that the photo shows the mapped place; nan if unknown."""
    maps: DenseView | None
    """Depth and points in the same unit and frame, float32; None where not asked for."""


@dataclass(frozen=True)
class Localisation:
    """All answers, in the order of the photos."""

    names: tuple[str, ...]
    cameras: Cameras
    """At the sizes that the model saw."""
    original_sizes: tuple[tuple[int, int], ...]
    """(height, width) of each photo as read."""
    confidence: Tensor
    """[Q] in (0, 1)"""
    views: tuple[DenseView, ...]
    """Dense maps of each photo; empty where not asked for."""


@dataclass(frozen=True)
class QueryOptions:
    """How photos are localised."""

    fast_head: bool = False
    """The map's camera tokens do not see the photo: far fewer operations, slightly other poses."""
    dense: bool = True
    """Depth and points too, not only cameras."""
    record: bool = True
    """On a CUDA device, record the kernels of a small chunk when its shape comes for the second
    time, and replay them from then on. Changes no answer."""


@dataclass(frozen=True)
class _Asked:
    """A chunk whose results are on their way to the host."""

    group: ViewGroup
    found: dict[str, Tensor]
    """[Q, …] on the host, by name."""
    arrived: torch.cuda.Event | None
    """When they are there; None where they are already."""


class Localizer:
    """A scene on a device, ready for questions from any number of threads."""

    def __init__(
        self,
        engine: SceneEngine,
        scene: SceneMemory,
        options: QueryOptions | None = None,
        alignment: Similarity | None = None,
    ) -> None:
        """Move the scene's memory to the engine's device.

        Args:
            engine: with the model that the scene was mapped with.
            scene: from :func:`vggt3.map` or a file.
            options: how.
            alignment: from the map's frame to the one in which answers shall come.

        Raises:
            DataError: a scene of another model.
        """
        scene.identity.hold(engine.identity)
        self.engine, self.options = engine, options or QueryOptions()
        self.model, self.alignment = engine.model, alignment
        self.scene = replace(scene, memory=engine.fit(scene.memory))
        weights = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        self.held = weights + self.scene.nbytes
        """Bytes on the device before any photo."""
        budget, device = self._budget, self.model.camera_head.empty_pose.device
        record = self.options.record and device.type == "cuda"
        self.recorder = Recorder(
            budget // RECORDED if record else 0, Graphs(device) if record else None
        )

    @property
    def _budget(self) -> int:
        return self.engine.options.resolve_memory(self.engine.device)

    def ask(
        self, views: Views, observe: Observer = lambda stage, done, total: None
    ) -> Iterator[Answer]:
        """Answers chunk by chunk, in the order of the groups (B = 1, images on any device).

        Raises:
            UsageError: photos that were not read; :func:`vggt3.localize` reads them.
            PlanError: the map and one photo do not fit.
        """
        told = "be vggt3.Views (vggt3.localize takes photos by name, and reads them)"
        checks.require(isinstance(views, Views), "views", told, repr(views))
        return self._in_turn(views, observe)

    def _in_turn(self, views: Views, observe: Observer) -> Iterator[Answer]:
        chunk = self.chunk([group.size for group in views.groups for _ in group.ids])
        groups = views.chunked(chunk).groups
        waiting: _Asked | None = None
        for n, group in enumerate(groups):
            asked = self._ask(group)
            if waiting is not None:  # given while the device works on the next chunk
                yield from self._answers(waiting)
            waiting = asked
            observe("localising", n + 1, len(groups))
        if waiting is not None:
            yield from self._answers(waiting)

    def chunk(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Photos at a time within the memory allowed.

        Raises:
            PlanError: the map and one photo do not fit.
        """
        budget, largest = self._budget, max(sizes, key=patches)
        needed = 0
        for chunk in (self.engine.options.chunk,) if self.engine.options.chunk else sum(CHUNKS, ()):
            needed = self._needed(largest, chunk)
            if needed + self.recorder.room <= budget:
                return chunk
        if needed <= budget:  # it must do without recordings
            self.recorder.clear()
            return chunk
        smaller = [SMALLER] if self._needed((PATCH, PATCH), chunk) <= budget else []
        checks.fail(
            f"a map of {show_bytes(self.scene.nbytes)} and a photo",
            f"fit {show_bytes(budget)}",
            f"{show_bytes(needed)} at least; {give([*smaller, MEMORY])}",
            error=checks.PlanError,
        )

    def _needed(self, size: tuple[int, int], chunk: int) -> int:
        """Bytes of everything, recordings left out."""
        return int(SLACK * (self.held + self._work(size, chunk)))

    def _work(self, size: tuple[int, int], chunk: int) -> int:
        config, element = self.model.config, self.engine.dtype.itemsize
        shown = HEADS_AT_ONCE if self.options.dense else 0
        tokens, block, heads = working_bytes(self.model, size, self.engine.dtype, chunk, shown)
        raw = len(config.feature_layers) * 2 * config.width if shown else 0
        # Depth, points, two confidences.
        results = chunk * size[0] * size[1] * 6 * 4 if shown else 0
        poses = self._sequences(chunk)[1]
        return tokens * (raw + 4 * config.width) * element + max(block, heads, poses) + results

    def _sequences(self, photos: int) -> tuple[int, int]:
        """Photos at a time in the camera head, and the bytes of what it works on then."""
        token = 2 * self.model.config.width * HEAD_WIDTHS * self.engine.dtype.itemsize
        known = self.scene.memory.camera_tokens.shape[1]
        if self.options.fast_head:  # one sequence, whose mask must not outgrow it
            turn = min(photos, FAST_TURN)
            return turn, (known + turn) * token
        row = (known + 1) * token
        turn = min(photos, max(1, HEAD_BYTES // row))
        return turn, turn * row

    @torch.inference_mode()
    def _ask(self, group: ViewGroup) -> _Asked:
        """Start a chunk: nothing here waits for the device, but where it is recorded."""
        count = len(group.ids)
        alone = tuple(range(count))  # answers depend on no photo's place among the others

        def found(images: Tensor) -> dict[str, Tensor]:
            return self._found(ViewGroup(images, alone, group.weight))

        images = group.images.contiguous()
        fits = self._needed(group.size, count) + self.recorder.room <= self._budget
        if group.weight is not None or not fits:
            return _Asked(group, *_leave(found(images)))
        nbytes = int(SLACK * self._work(group.size, count))
        with self.recorder.found(found, images, nbytes) as results:
            return _Asked(group, *_leave(results))

    def _found(self, group: ViewGroup) -> dict[str, Tensor]:
        """All that is asked of a chunk, [Q, …] on the device. It may be recorded: it sends
        nothing there, fetches nothing, and decides nothing by what images show."""
        recall, dense = Recall(self.model), self.options.dense
        conduct = Conduct(
            keep=False,
            ahead=True,
            witness=recall,
            feature=whole if dense else lambda chunk, slot, tokens: None,
        )
        count = len(group.ids)
        # A caller's autocast is none of ours, and a recording must not hold weights from its cache.
        with torch.autocast(self.engine.device.type, enabled=False, cache_enabled=False):
            trunk = self.model.read(Views((group,), count), conduct, self.scene.memory)
            cameras = self.engine.decode(self._poses(trunk), [group.size] * count)
            found = {
                "confidence": self.scene.familiarity.confidence(recall.of(0, count)),
                "poses": cameras.camera_from_world,
                "intrinsics": cameras.intrinsics,
            }
            if dense:
                maps = self._dense(group, trunk.features[0], cameras)
                found |= dict(zip(MAPS, maps, strict=True))
        return found

    def _answers(self, asked: _Asked) -> Iterator[Answer]:
        """Hand out a chunk, its results in memory of their own."""
        if asked.arrived is not None:
            asked.arrived.synchronize()
        with torch.inference_mode(False):  # what a user gets may be differentiated
            found = {name: x.clone() for name, x in asked.found.items()}
        maps = [found[name] for name in MAPS if name in found]
        for n, index in enumerate(asked.group.ids):
            view = DenseView(index, *(x[n] for x in maps)) if maps else None
            pose, intrinsics = found["poses"][n], found["intrinsics"][n]
            sure = float(found["confidence"][n])
            yield self._aligned(Answer(index, pose, intrinsics, asked.group.size, sure, view))

    def _dense(
        self,
        group: ViewGroup,
        features: tuple[Tensor, ...],  # each [1, Q, P, 2C]
        cameras: Cameras,
    ) -> list[Tensor]:
        """Depth, its confidence, points, and theirs, [Q, …] fp32 on the device."""
        found, start = [], 0
        for piece in group.chunks(HEADS_AT_ONCE):
            some = slice(start, start + len(piece.ids))
            maps = self.model.dense([x[:, some] for x in features], piece)
            depth, sure = maps.depth[0].float(), maps.depth_confidence[0].float()
            points, sure_of_points = maps.points[0].float(), maps.points_confidence[0].float()
            if self.engine.options.points_from == "depth":
                where = cameras.intrinsics[some], cameras.camera_from_world[some]
                points, sure_of_points = unproject(depth, *where, PIXEL_CENTRE), sure
            found.append((depth, sure, points, sure_of_points))
            start = some.stop
        return [torch.cat(pieces) for pieces in zip(*found, strict=True)]

    def _poses(self, trunk: Trunk) -> Tensor:
        """[Q, 9]; so many sequences at a time as their bytes allow."""
        memory = self.scene.memory
        turn, _ = self._sequences(trunk.camera_tokens.shape[1])
        found = []
        for tokens in trunk.camera_tokens.split(turn, dim=1):
            some = replace(trunk, camera_tokens=tokens)
            found.append(self.model.poses(some, memory, fast=self.options.fast_head)[-1][0])
        return torch.cat(found)

    def _aligned(self, answer: Answer) -> Answer:
        if self.alignment is None:
            return answer
        wide = answer.camera_from_world.double()
        wide = torch.cat([nearest_rotation(wide[:, :3]), wide[:, 3:]], dim=-1)
        pose = self.alignment.apply_to_cameras(wide[None])[0]
        maps = answer.maps
        if maps is not None:
            scale = float(self.alignment.scale)
            points = self.alignment.apply(maps.points.double().flatten(0, 1)).float()
            maps = replace(maps, depth=maps.depth * scale, points=points.view_as(maps.points))
        return replace(answer, camera_from_world=pose, maps=maps)


def _leave(found: dict[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
    """Start copies to the host; from a CUDA device into page-locked memory, without waiting."""
    device = found["poses"].device
    if device.type != "cuda":
        return {name: x.cpu() for name, x in found.items()}, None
    host = {}
    for name, x in found.items():
        host[name] = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        host[name].copy_(x, non_blocking=True)
    return host, torch.cuda.current_stream(device).record_event()


def gap_between(first: Localizer, second: Localizer, views: Views) -> CameraGap:
    """How far two ways to localise the same photos in the same map lie apart."""
    one, other = (
        torch.stack([a.camera_from_world for a in sorted(way.ask(views), key=lambda a: a.index)])
        for way in (first, second)
    )
    return camera_gap(one, other, extent_of(first.scene.cameras.camera_from_world))


def localize(
    model: VGGT3,
    scene: SceneMemory,
    views: Source | Views,
    options: RunOptions | None = None,
    *,
    query: QueryOptions | None = None,
    alignment: Similarity | None = None,
    long_side: int | None = None,
) -> Localisation:
    """Cameras, depth and confidence of photos in a scene that has never seen them.

    Args:
        model: the one that the scene was mapped with.
        scene: from :func:`vggt3.map` or :meth:`SceneMemory.load`; it stays as it is.
        views: photos (a folder, a glob, files, …) or :class:`vggt3.Views` of B = 1.
        options: device, precision, memory.
        query: the fast camera head; cameras alone.
        alignment: from the map's frame to the wanted one (:func:`umeyama`).
        long_side: of photos in the model; that of the mapped ones if not given.

    Raises:
        InputError: nothing readable, a scene of another model, a map that does not fit.
    """
    localizer = Localizer(SceneEngine(model, options), scene, query, alignment)
    taken = take(views, long_side or scene.record.get("long_side") or model.config.long_side)
    return gather(taken, localizer.ask(taken.views))


def gather(taken: Taken, answers: Iterator[Answer]) -> Localisation:
    """All answers in the photos' order."""
    found = sorted(answers, key=lambda answer: answer.index)
    cameras = Cameras(
        torch.stack([answer.camera_from_world for answer in found]),
        torch.stack([answer.intrinsics for answer in found]),
        tuple(answer.size for answer in found),
    )
    maps = tuple(answer.maps for answer in found if answer.maps is not None)
    confidence = torch.tensor([answer.confidence for answer in found])
    return Localisation(taken.names, cameras, taken.original_sizes, confidence, maps)
