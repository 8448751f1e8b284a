"""The engine: the model's own functions, chunk by chunk, results streamed to whoever writes them.

It holds no second implementation: :class:`vggt3.model.scene.Scene` reads the chunks in the order
that training reads whole groups. The plan only says how large they are, where tensors lie in the
meantime, and what is computed again.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.distributed import ALONE, World
from vggt3.geometry.camera import decode_pose
from vggt3.geometry.projection import unproject
from vggt3.inference.agreement import Agreeing, OutOfMemoryElsewhere
from vggt3.inference.features import Features
from vggt3.inference.handover import Handover, Sink
from vggt3.inference.measure import Sizes
from vggt3.inference.options import RunOptions, Wishes
from vggt3.inference.plan import HEADS_AT_ONCE, Plan, make_plans, neediest
from vggt3.inference.shelf import Copies, HostMemory, HostShelf
from vggt3.model.precision import placed
from vggt3.model.scene import Conduct, Memory, Observer, Trunk
from vggt3.model.vggt3 import VGGT3, DenseMaps, Projected
from vggt3.types import PATCH, Cameras, DenseView, ViewGroup, Views

PIXEL_CENTRE = 0.5
"""Of the cameras and points that are handed over (docs/conventions.md)."""


@dataclass
class Clock:
    """Seconds by stage; a stage ends when the device has done its work."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block under ``name``; blocks of one name add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            elapsed = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed


@dataclass(frozen=True)
class Outcome:
    """What a run leaves beside its results."""

    plan: Plan
    seconds: dict[str, float]
    """By stage: layers (encoding included), cameras, heads; and in them, where host memory was
    page-locked for copies, pinning."""
    peak_bytes: int
    """The most memory in use: allocated on a GPU, the whole process's on a CPU."""
    memory: Memory
    """The scene's memory, for localising more photos in it."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the run went."""


@dataclass(frozen=True)
class Onto:
    """A settled scene that the views of a run are added to."""

    memory: Memory
    """On the engine's device; it stays as it is."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of the views that wrote it."""
    share: float
    """The new views' of all tokens."""


class _Once:
    """A sink before the caller's that a second try may fill again: everything passes once."""

    def __init__(self, sink: Sink) -> None:
        self.sink, self.posed = sink, False
        self.on_device = bool(getattr(sink, "on_device", False))
        self.seen: set[int] = set()

    def cameras(self, cameras: Cameras) -> None:
        if not self.posed:
            self.posed = True
            self.sink.cameras(cameras)

    def add(self, view: DenseView) -> None:
        if view.index not in self.seen:
            self.seen.add(view.index)
            self.sink.add(view)


class Engine:
    """Runs a model over scenes of any size on one device, or on those of several processes."""

    def __init__(
        self,
        model: VGGT3,
        options: RunOptions | None = None,
        world: World = ALONE,
        dense: bool = True,
    ) -> None:
        """``model`` itself stays as it is: what is run is a copy on the device and in the
        precision that ``options`` name, which shares what it can (:attr:`model`).

        The ranks of ``world`` share each scene: all of them have the same model and options and
        call the same methods in the same order. Without ``dense`` the dense heads do not run, and
        nothing is planned or kept for them: sinks get cameras alone.
        """
        self.options = options or RunOptions()
        self.device = self.options.resolve_device()
        self.dtype = self.options.resolve_dtype(self.device)
        self.model = placed(model, self.device, self.dtype)
        self.world = Agreeing.among(world)
        self.dense = dense
        self._made: dict[object, list[Plan]] = {}

    @property
    def _wishes(self) -> Wishes:
        wishes = self.options.wishes
        return wishes if self.dense else replace(wishes, features="none")

    def plan(self, views: Views, before: Sizes = ()) -> Plan:
        """How ``views`` would be computed, perhaps for a scene that holds those of ``before``;
        raises PlanError where they do not fit."""
        return self._plans(_sizes(self._held(views)), self._wishes, before)[self.world.rank]

    def plan_sizes(self, sizes: Sequence[tuple[int, int]]) -> Plan:
        """The same for a scene's views of these (height, width), before any is read. Of several
        ranks that share it evenly, for the one that needs most.

        Raises:
            UsageError: no size, or one whose sides are no multiples of the patch.
            PlanError: they do not fit.
        """
        checks.require(bool(sizes), "sizes of views", "be at least one (height, width)", "none")
        for size in sizes:
            whole = [side > 0 and side % PATCH == 0 for side in size] == [True, True]
            told = f"be (height, width) of multiples of {PATCH}, as the model sees it"
            checks.require(whole, "the size of a view", told, tuple(size))
        worlds = [replace(self.world, rank=rank) for rank in range(self.world.size)]
        shares = [sizes[slice(*world.share(len(sizes)))] for world in worlds]
        return neediest(self._plans(shares, self._wishes))

    def _plans(self, shares: Sequence[Sizes], wishes: Wishes, before: Sizes = ()) -> list[Plan]:
        """Every rank's plan; the smallest budget counts for all."""
        own = self.options.resolve_memory(self.device)
        budgets = self.world.exchange((own, self.options.resolve_host_memory(self.device)))
        hosts = [host for _, host in budgets if host is not None]
        budget, host = min(near for near, _ in budgets), min(hosts, default=None)
        key = (tuple(map(tuple, shares)), budget, wishes, host, tuple(before))
        if key not in self._made:  # measuring the backends takes longer than encoding a photo
            made = make_plans(self.model, shares, budget, self.dtype, wishes, host, before)
            self._made = {key: made}
        return self._made[key]

    def _held(self, views: Views) -> list[dict[int, tuple[int, int]]]:
        """For every rank, (height, width) by id of its views, in the order of their groups."""
        return self.world.exchange({i: group.size for group in views.groups for i in group.ids})

    @torch.inference_mode()
    def run(
        self,
        views: Views,
        sink: Sink,
        observe: Observer = lambda stage, done, total: None,
        plan: Plan | None = None,
        onto: Onto | None = None,
    ) -> Outcome:
        """Read the scene (B = 1, images on any device) and stream the results to ``sink``.

        With ``onto`` the views write once to that scene, and read what results; the outcome's
        memory is of all, the cameras are of the new views (only without dense heads).

        Of several ranks each gives its own ``views`` (perhaps none) of the scene, and its sink
        gets all cameras and the maps of these views.

        Where memory runs out in spite of the plan, on any rank, once more at half the chunk on
        all; the outcome's notes say so. Views that ``sink`` has by then are not given again.

        Raises:
            PlanError: the scene does not fit the memory allowed, or memory ran out twice.
            RankError: another rank is gone.
        """
        alone = onto is None or not self.dense
        checks.require(alone, "onto", "go to an engine without dense heads", "one with them")
        held, before = self._held(views), onto.sizes if onto else ()
        shares = _sizes(held)
        plans = [plan] if plan else self._plans(shares, self._wishes, before)
        plan = plan or plans[self.world.rank]
        once, most = _Once(sink), max(max(Counter(share).values(), default=0) for share in shares)
        try:
            return self._run(views, once, observe, plan, held, onto)
        except torch.OutOfMemoryError as error:
            told = str(error).partition(". ")[0]
            checks.require(
                min(plan.chunk, most) > 1,
                f"the plan for {plan.views} views",
                f"fit the memory of {self.device}",
                f"'{told}' with one view at a time; {_remedy(plan)}",
                error=checks.PlanError,
            )
        # Out of the handler: nothing of the first try is held by its traceback any more.
        self._free()
        halved = self._plans(shares, neediest(plans).halved(most), before)[self.world.rank]
        chunk = min(plan.chunk, most)
        try:
            outcome = self._run(views, once, observe, halved, held, onto)
        except torch.OutOfMemoryError as error:
            checks.fail(
                f"the plan for {plan.views} views",
                f"fit the memory of {self.device}",
                f"'{str(error).partition('. ')[0]}' with {chunk} and with {halved.chunk} views "
                f"at a time; {_remedy(plan)}",
                error=checks.PlanError,
            )
        note = f"out of memory with {chunk} views at a time; done again with {halved.chunk}"
        return replace(outcome, notes=(note,))

    def _run(
        self,
        views: Views,
        sink: Sink,
        observe: Observer,
        plan: Plan,
        held: Sequence[dict[int, tuple[int, int]]],
        onto: Onto | None,
    ) -> Outcome:
        host, copies = HostMemory(self.device), Copies(self.device)
        out = Handover(sink, copies)
        chunked = views.chunked(plan.chunk)
        features = Features(self.model, plan, chunked, host, copies)
        conduct = Conduct(
            world=self.world,
            keep=plan.keep,
            ahead=True,
            observe=observe,
            shelf=(lambda: HostShelf(host, copies)) if plan.host_tokens else dict,
            feature=features.keep,
        )
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            # In here ranks meet only where they tell each other too that they are well.
            sizes = {i: size for share in held for i, size in share.items()}
            outcome = self._stages(chunked, features, conduct, out, plan, sizes, onto)
            if host.pinned and host.taken:
                outcome.seconds["pinning"] = host.seconds
            self.world.agree()
            return outcome
        except OutOfMemoryElsewhere:
            raise
        except torch.OutOfMemoryError as error:
            self.world.agree(str(error).partition(". ")[0])
            raise
        finally:
            out.abandon()  # nothing, where all has been given
            copies.finish()

    def _stages(
        self,
        chunked: Views,
        features: Features,
        conduct: Conduct,
        out: Handover,
        plan: Plan,
        sizes: dict[int, tuple[int, int]],
        onto: Onto | None,
    ) -> Outcome:
        clock = Clock(self.device)
        with clock.stage("layers"):
            trunk = self._read(chunked, conduct, onto)
        with clock.stage("cameras"):
            pose = self.model.poses(trunk)[-1][0, -chunked.total :]  # [V, 9]
            cameras = self.decode(pose.cpu(), [sizes[i] for i in range(chunked.total)])
            out.sink.cameras(cameras)
        with clock.stage("heads"):
            here = cameras.camera_from_world.to(self.device), cameras.intrinsics.to(self.device)
            shown = chunked.groups if chunked.ids and plan.features != "none" else ()
            for n, group in enumerate(shown):
                taken = features.take(n, trunk.memory)
                for piece, given in _pieces(group, taken):
                    out.give(piece.ids, self._maps(self.model.dense(given, piece), piece, here))
                del taken
                conduct.observe("heads", n + 1, len(chunked.groups))
            out.finish()
        return Outcome(plan, clock.seconds, peak_bytes(self.device), trunk.memory)

    def _read(self, chunked: Views, conduct: Conduct, onto: Onto | None) -> Trunk:
        if onto is None:
            return self.model.read(chunked, conduct)
        trunk = self.model.read(chunked, conduct, onto.memory, share=onto.share)
        old = onto.memory.camera_tokens
        both = torch.cat([old, trunk.camera_tokens.to(old)], dim=1)
        return replace(trunk, camera_tokens=both, plans=onto.memory.plans)

    def _free(self) -> None:
        """Give back what a run that failed has left."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def decode(
        self,
        pose: Tensor,  # [N, 9] what the camera head says, on any device
        sizes: Sequence[tuple[int, int]],  # (height, width) of each of the N views
    ) -> Cameras:
        """Cameras in fp32 where ``pose`` lies, pixels counted from the corner of the first.

        Heads whose pixels are whole numbers (``pixel_offset`` 0) have the ray of pixel 0 where
        ours has its corner: their principal point is half a pixel further in ours.
        """
        rows, different = pose.float(), list(dict.fromkeys(sizes))
        # Of one size, nothing is sent to the device, so nothing waits for it.
        poses, intrinsics = decode_pose(rows, different[0])
        for size in different[1:]:
            places = [n for n, own in enumerate(sizes) if own == size]
            poses[places], intrinsics[places] = decode_pose(rows[places], size)
        intrinsics[:, :2, 2] += PIXEL_CENTRE - self.model.config.pixel_offset
        return Cameras(poses, intrinsics, tuple(sizes))

    def _maps(
        self, maps: DenseMaps, group: ViewGroup, cameras: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Depth, its confidence, points and theirs in fp32: points from depth or head as asked."""
        points, confidence = maps.points[0], maps.points_confidence[0]
        if self.options.points_from == "depth":
            first, last = group.ids[0], group.ids[-1] + 1
            near = list(group.ids) == list(range(first, last))
            ids = slice(first, last) if near else torch.tensor(group.ids, device=self.device)
            camera_from_world, intrinsics = (x[ids] for x in cameras)
            points = unproject(maps.depth[0], intrinsics, camera_from_world, PIXEL_CENTRE)
            confidence = maps.depth_confidence[0]
        found = (maps.depth[0], maps.depth_confidence[0], points, confidence)
        return found[0].float(), found[1].float(), found[2].float(), found[3].float()


def _remedy(plan: Plan) -> str:
    fewer = plan.features not in ("replay", "none")
    return "give less --memory" + (" or --features replay" if fewer else "")


def _sizes(held: Sequence[dict[int, tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    return [list(share.values()) for share in held]


def _pieces(
    group: ViewGroup, features: tuple[Tensor | Projected, ...]
) -> Iterator[tuple[ViewGroup, tuple[Tensor | Projected, ...]]]:
    """A chunk in pieces for the dense heads, with the four features of each (B = 1)."""
    start = 0
    for piece in group.chunks(HEADS_AT_ONCE):
        stop = start + len(piece.ids)
        own = tuple(
            x[:, start:stop] if isinstance(x, Tensor) else (x[0][start:stop], x[1][start:stop])
            for x in features
        )
        yield piece, own
        start = stop


def peak_bytes(device: torch.device) -> int:
    """Most bytes in use so far: allocated on a CUDA device, else resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
