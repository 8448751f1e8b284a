"""The plan of a run: how many views at a time, where tensors lie, and what is computed again.

Computed from sizes and stated budgets alone, so the same photos give the same plan on the same
machine, and the same plan gives the same bits.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch

from vggt3 import checks
from vggt3.inference.advice import FEWER, MEMORY, SMALLER, give
from vggt3.inference.measure import Scale, Sizes, measure, patches, working_bytes
from vggt3.inference.options import Wishes, show_bytes
from vggt3.model.vggt3 import VGGT3
from vggt3.types import PATCH, even_pieces

CHUNKS = (64, 32, 16, 8), (4, 2, 1)
"""Views at a time: small chunks only where nothing else helps."""
CHUNKS_ON_CPU = CHUNKS[0][-1:], CHUNKS[1]
"""A CPU is a quarter faster where a chunk's tensors stay in its caches."""
SLACK = 1.15
"""On top of the sum: the allocator's rounding and small things not counted."""
HEADS_AT_ONCE = 16
"""Views that the dense heads work on at a time: their maps are large."""
TRAVELLING = 4
"""Chunks of running tokens on the device when they lie on the host: one that works, its result,
one that comes and one that leaves."""


@dataclass(frozen=True)
class Plan:
    """How a scene is computed within a memory budget."""

    views: int
    tokens: int
    """T: tokens of all views."""
    chunk: int
    """Views worked on at a time (of one size)."""
    keep: bool
    """Whether a layer's projections are kept between write and read, or computed again."""
    parts: tuple[tuple[str, int], ...]
    """What takes memory on the device at the worst moment, in bytes."""
    budget: int
    """Bytes allowed."""
    features: str = "raw"
    """raw, projected, or replay: the dense heads' inputs are not kept, but made again; none where
    these heads do not run."""
    chunks: int = 1
    """Chunks in all."""
    near: int = 1
    """Chunks whose features lie on the device, the first ones; the others' lie on the host."""
    host_tokens: bool = False
    """Whether the running tokens lie in host memory."""
    host_parts: tuple[tuple[str, int], ...] = ()
    """What takes memory on the host, in bytes."""
    host_budget: int | None = None
    """Bytes allowed there; None where host and device are one memory."""
    processes: int = 1
    """Those that share the views; each has a plan, all alike but for what its own views take."""
    own: int = 0
    """Views of the process that the plan is for, where there are several."""

    @property
    def needed(self) -> int:
        """Bytes the plan expects to use on the device at its worst moment."""
        shared = self.host_parts if self.host_budget is None else ()
        return int(SLACK * sum(size for _, size in (*self.parts, *shared)))

    @property
    def host_needed(self) -> int:
        """Bytes of host memory for tokens and features (page-locked for a CUDA device)."""
        return int(SLACK * sum(size for _, size in self.host_parts))

    def halved(self, views: int) -> Wishes:
        """The same way to compute, at half the views at a time (of at most ``views``)."""
        features = self.features + ("-host" if self.near < self.chunks else "")
        tokens = "host" if self.host_tokens else "device"
        chunk = min(self.chunk, views) // 2
        return Wishes(chunk, tokens, "keep" if self.keep else "again", features)

    @property
    def fits(self) -> bool:
        """Whether both budgets hold it."""
        host = self.host_budget is None or self.host_needed <= self.host_budget
        return host and self.needed <= self.budget

    def describe(self) -> list[tuple[str, str]]:
        """Rows (name, value) for people."""
        features = self.features
        if features == "replay":
            features = "read again chunk by chunk"
        elif self.near < self.chunks:
            features += f", {self.chunks - self.near} of {self.chunks} chunks in host memory"
        rows = [
            ("views", self._views()),
            ("tokens", f"{self.tokens}, in {'host' if self.host_tokens else 'device'} memory"),
            ("views at a time", str(self.chunk)),
            ("projections", "kept" if self.keep else "computed again"),
            ("features", features),
        ]
        rows += [(f"memory: {name}", show_bytes(size)) for name, size in self.parts]
        rows += [(f"host memory: {name}", show_bytes(size)) for name, size in self.host_parts]
        rows += [
            ("memory: expected", show_bytes(self.needed)),
            ("memory: allowed", show_bytes(self.budget)),
        ]
        if self.host_budget is not None and self.host_parts:
            rows.append(("host memory: expected", show_bytes(self.host_needed)))
            rows.append(("host memory: allowed", show_bytes(self.host_budget)))
        return rows

    def _views(self) -> str:
        several = f" in {self.processes} processes, {self.own} in the neediest"
        return str(self.views) + (several if self.processes > 1 else "")


@dataclass(frozen=True)
class _Mode:
    """One way to compute a scene. Fields in the order in which they are given up, last first."""

    heads: bool
    """Whether the dense heads run: never given up."""
    replay: bool
    host_tokens: bool
    host_features: bool
    again: bool
    projected: bool

    @property
    def features(self) -> str:
        """As the caller spells it."""
        if not self.heads:
            return "none"
        if self.replay:
            return "replay"
        return ("projected" if self.projected else "raw") + ("-host" if self.host_features else "")


def _modes(wishes: Wishes, host: bool, bounded: bool) -> Iterator[_Mode]:
    """All ways that are allowed, those that keep more and move less first."""
    for bits in itertools.product((wishes.features != "none",), *5 * [(False, True)]):
        mode = _Mode(*bits)
        if mode.replay and (mode.host_features or mode.projected or not bounded):
            continue
        if not mode.heads and (mode.replay or mode.host_features or mode.projected):
            continue
        # Where there is no second memory, host is for those who name it; raw features always.
        asked = (
            ("host" if mode.host_tokens else "device", wishes.tokens, host or not mode.host_tokens),
            ("again" if mode.again else "keep", wishes.projections, True),
            (mode.features, wishes.features, not mode.host_features or (host and mode.projected)),
        )
        if all(wish == spelt or (wish is None and usual) for spelt, wish, usual in asked):
            yield mode


class _Share(NamedTuple):
    """The views of one process."""

    counts: tuple[tuple[tuple[int, int], int], ...]
    """(size, views) in the order in which sizes appear, as groups are."""
    tokens: int

    @property
    def views(self) -> int:
        return sum(count for _, count in self.counts)


class _Planner:
    """Weighs the modes of one scene in one model."""

    def __init__(
        self,
        model: VGGT3,
        shares: Sequence[Sizes],
        budget: int,
        dtype: torch.dtype,
        before: Sizes,
    ) -> None:
        sizes = [size for share in shares for size in share]
        self.model, self.budget, self.dtype = model, budget, dtype
        self.sizes, self.before = shares, before
        self.scale: Scale = measure(model, sizes, dtype, before)
        self.shares = [
            _Share(
                tuple(Counter(share).items()),
                sum(patches(size) + model.config.special for size in share),
            )
            for share in shares
        ]
        self.largest = max(sizes, key=lambda size: size[0] * size[1])

    def first_that_fits(
        self, wishes: Wishes, host: int | None
    ) -> tuple[list[Plan] | None, Plan | None]:
        """Every process's plan of the first way that fits all of them. If there is none, what the
        one with most to hold takes in the way that needs least."""
        smallest = None
        on_cpu = next(self.model.parameters()).device.type == "cpu"
        usual = CHUNKS_ON_CPU if on_cpu else CHUNKS
        for chunks in ((wishes.chunk,),) if wishes.chunk else usual:
            for mode in _modes(wishes, host is not None, not self.scale.unbounded):
                for chunk in chunks:
                    found = {s: self.weigh(chunk, mode, host, s) for s in set(self.shares)}
                    if all(plan.fits for plan in found.values()):
                        return [found[share] for share in self.shares], None
                    worst = neediest(found.values())
                    if smallest is None or worst.needed < smallest.needed:
                        smallest = worst
        return None, smallest

    def weigh(self, chunk: int, mode: _Mode, host_budget: int | None, share: _Share) -> Plan:
        """What a mode takes, with as many features on the device as it holds."""
        scale = self.scale
        views = min(chunk, share.views)
        shown = HEADS_AT_ONCE if mode.heads else 0
        held, block, heads = working_bytes(self.model, self.largest, self.dtype, views, shown)
        moving = (2 if mode.host_features else 1) * scale.raw * held if mode.heads else 0
        tokens = scale.token * (TRAVELLING * held if mode.host_tokens else share.tokens)
        projections = scale.projection * (held if mode.again else share.tokens)
        if mode.replay or tokens + projections + block > heads:
            # Replayed views pass through the layers again beside the heads.
            work = {"tokens": tokens, "projections": projections}
            work["work on a chunk"] = moving + (max(block, heads) if mode.replay else block)
        else:  # the layers are done, and what they worked with is gone
            work = {"work of the dense heads": moving + heads}
        parts = {
            "weights": scale.weights,
            "features for the heads": 0,
            "scene memory": scale.states,
            **work,
        }
        if len(self.shares) > 1 and scale.gathered:
            parts["keys and values on their way"] = scale.gathered
        features = [self._feature_bytes(mode, *piece) for piece in self._pieces(chunk, share)]
        near = len(features)
        if mode.host_features:
            free = self.budget / SLACK - sum(parts.values())
            running = itertools.accumulate(features)
            near = sum(total <= free for total in running) if host_budget is not None else near
        parts["features for the heads"] = sum(features[:near])
        host_parts = []
        if mode.host_tokens:
            host_parts.append(("tokens", scale.token * share.tokens))
        if near < len(features):
            host_parts.append(("features for the heads", sum(features[near:])))
        return Plan(
            views=scale.views,
            tokens=scale.tokens,
            chunk=chunk,
            keep=not mode.again,
            parts=tuple(parts.items()),
            budget=self.budget,
            features=mode.features.removesuffix("-host"),
            chunks=len(features),
            near=near,
            host_tokens=mode.host_tokens,
            host_parts=tuple(host_parts),
            host_budget=host_budget,
            processes=len(self.shares),
            own=share.views,
        )

    def _pieces(self, chunk: int, share: _Share) -> Iterator[tuple[int, int]]:
        """(views, patches of each) of every chunk."""
        for size, count in share.counts:
            for views in even_pieces(count, chunk):
                yield views, patches(size)

    def _feature_bytes(self, mode: _Mode, views: int, view_patches: int) -> int:
        if mode.replay or not mode.heads:
            return 0
        if mode.projected:
            return views * view_patches * self.scale.projected
        return views * (view_patches + self.model.config.special) * self.scale.raw

    def what_would_fit(self, wishes: Wishes, host: int | None) -> str:
        """Which single wish to give up, or how much host memory to allow."""
        for wish in fields(wishes):
            value = getattr(wishes, wish.name)
            if value is None:
                continue
            found, _ = self.first_that_fits(replace(wishes, **{wish.name: None}), host)
            if found is not None:
                return f"without --{wish.name} {value} it would fit"
        if host is not None:
            found, _ = self.first_that_fits(wishes, 2**62)
            if found is not None:
                needed = show_bytes(max(plan.host_needed for plan in found))
                return f"with --host-memory {needed} it would fit"
        return self._what_helps(wishes, host)

    def _what_helps(self, wishes: Wishes, host: int | None) -> str:
        """What makes a scene smaller that fits in no way: only what can be enough by itself, and a
        backend that takes less than this one."""
        shares = [[(PATCH, PATCH)] * share.views for share in self.shares]
        first: list[Sizes] = [[self.largest], *([] for _ in self.shares[1:])]
        helps = [
            (SMALLER, self._would_fit(shares, wishes, host)),
            (FEWER, self._would_fit(first, wishes, host)),
            ("--precision bf16", self._would_fit(self.sizes, wishes, host, torch.bfloat16)),
            ("a backend with a bounded state", bool(self.scale.unbounded)),
        ]
        names = [name for name, helpful in helps if helpful]
        return give([*names, MEMORY])

    def _would_fit(
        self,
        shares: Sequence[Sizes],
        wishes: Wishes,
        host: int | None,
        dtype: torch.dtype | None = None,
    ) -> bool:
        """Whether other views, or other numbers, would fit."""
        other = _Planner(self.model, shares, self.budget, dtype or self.dtype, self.before)
        return other.first_that_fits(wishes, host)[0] is not None


def neediest(plans: Iterable[Plan]) -> Plan:
    """Of the plans of several processes the one that takes most; of equals the first."""
    return max(plans, key=lambda plan: (plan.needed, plan.host_needed))


def make_plan(
    model: VGGT3,
    sizes: Sizes,
    budget: int,
    dtype: torch.dtype,
    wishes: Wishes | None = None,
    host_budget: int | None = None,
) -> Plan:
    """:func:`make_plans` for one process that holds all views, of these ``sizes``."""
    return make_plans(model, [sizes], budget, dtype, wishes, host_budget)[0]


def make_plans(
    model: VGGT3,
    shares: Sequence[Sizes],
    budget: int,
    dtype: torch.dtype,
    wishes: Wishes | None = None,
    host_budget: int | None = None,
    before: Sizes = (),
) -> list[Plan]:
    """The first of the ways to compute a scene that fits, those that keep most first.

    Given up in this order: raw features (for projected ones), projections between sweeps,
    features on the device, tokens on the device, features at all (replay); chunks below 8 views
    last.

    Args:
        model: on the device it will run on.
        shares: for each process that shares the scene, (height, width) of its views as the model
            sees them; all processes compute alike, and each gets a plan of its own.
        budget: bytes allowed on a device.
        dtype: of matrix products.
        wishes: what the caller insists on.
        host_budget: bytes allowed a process in host memory; None where it is the device's own.
        before: of the views of a scene that these are added to.

    Raises:
        UsageError: replay with a backend whose memory grows with the views.
        PlanError: nothing fits; says what it would need and what to change.
    """
    wishes = wishes or Wishes()
    planner = _Planner(model, shares, budget, dtype, before)
    names = ", ".join(planner.scale.unbounded)
    checks.require(
        not names or wishes.features != "replay",
        "--features",
        f"be raw or projected with {names}, whose memory of a scene grows with its views and "
        "would be read whole for each chunk again",
        "replay",
    )
    found, smallest = planner.first_that_fits(wishes, host_budget)
    if found is not None:
        return found
    assert smallest is not None
    largest = max(smallest.parts, key=lambda part: part[1])
    host = ""
    if smallest.needed <= budget:
        host = f" and {show_bytes(smallest.host_needed)} of host memory"
    checks.fail(
        f"the plan for {smallest.views} view{'s' if smallest.views != 1 else ''}"
        + (f" in {len(shares)} processes" if len(shares) > 1 else ""),
        f"fit {show_bytes(budget)}"
        + (f" and {show_bytes(host_budget)} of host memory" if host and host_budget else ""),
        f"{show_bytes(smallest.needed)}{host} at least ({largest[0]}: {show_bytes(largest[1])}); "
        + planner.what_would_fit(wishes, host_budget),
        error=checks.PlanError,
    )
