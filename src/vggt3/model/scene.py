"""The order in which a scene is read: the one path through the model.

Training calls it with whole groups; the engine with chunks of them, on any number of ranks, with
or without keeping projections; localisation with a frozen memory that is only read. Nothing else
knows how layers, chunks, sweeps and ranks follow each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from vggt3.attention.base import Context, Projection
from vggt3.attention.memory import Delta, State
from vggt3.attention.rope import Rope
from vggt3.distributed import ALONE, World
from vggt3.model.aggregator import Aggregator
from vggt3.model.blocks import Carried, GlobalBlock
from vggt3.model.encoder import Encoder
from vggt3.types import ViewGroup, Views

Witness = Callable[[int, int, Projection, State], None]
"""Called as (layer, chunk, projection, settled state) when a chunk reads a layer."""

Observer = Callable[[str, int, int], None]
"""Called as (stage, done, total) while a scene is read."""


class Shelf(Protocol):
    """Where the running tokens of each chunk lie between two visits to it."""

    def __getitem__(self, chunk: int, /) -> Tensor: ...

    def __setitem__(self, chunk: int, tokens: Tensor, /) -> None: ...

    def pop(self, chunk: int, /) -> Tensor: ...


def whole(chunk: int, slot: int, tokens: Tensor) -> Tensor | None:
    """Keep a feature as it is."""
    return tokens


def encoded(encoder: Encoder, images: Tensor, ahead: bool) -> Tensor:
    """Encode images [N, 3, H, W] to patches [N, P, E]."""
    patches: Tensor = encoder(images, ahead)
    return patches


@dataclass(frozen=True)
class Conduct:
    """How a scene is read; changes memory and time, never the result."""

    world: World = ALONE
    """The ranks that share the views."""
    keep: bool = True
    """Keep the projections of a layer between its sweeps and its read, or make them again."""
    checkpoint: bool = False
    """In training, keep only block borders and compute the rest again in the backward pass."""
    ahead: bool = False
    """Let each block make the LayerNorm that the next one begins with, while it has the tokens at
    hand: one pass over them less. Not where blocks are checkpointed or their weights spread."""
    observe: Observer = lambda stage, done, total: None
    """Progress."""
    shelf: Callable[[], Shelf] = dict
    """Makes what holds the running tokens, which are visited chunk after chunk, round by round."""
    encode: Callable[[Encoder, Tensor, bool], Tensor] = encoded
    """Gives the patches of a chunk's images: by the encoder, or as somebody else knows them."""
    feature: Callable[[int, int, Tensor], Tensor | None] = whole
    """What the trunk keeps of a feature, nothing where None: called with the chunk, the place
    among the feature layers, and [B, V_c, P, 2C]."""
    witness: Witness | None = None
    """Is shown what each chunk brings to each layer's memory, and the memory."""

    def run(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """Call ``function``, as a checkpoint region where asked for."""
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(function, *inputs, use_reentrant=False)
        return function(*inputs)


@dataclass(frozen=True)
class Memory:
    """What a scene leaves behind: every layer's settled state, and the surveys' plans."""

    states: tuple[State, ...]
    camera_tokens: Tensor
    """[B, V, 2C] raw last-layer camera tokens of all views, in scene order."""
    plans: tuple[State | None, ...] = ()
    """What each layer's survey found of the scene's own views; not for queries."""


@dataclass(frozen=True)
class Trunk:
    """What the heads read."""

    features: tuple[tuple[Tensor, ...], ...]
    """For each chunk, for each feature layer: [B, V_c, P, 2C] after the frame | global block
    (as far as the conduct kept them)."""
    camera_tokens: Tensor
    """[B, V, 2C] of all views on all ranks, in scene order (of these views when querying)."""
    states: tuple[State, ...]
    """Every layer's settled state."""
    plans: tuple[State | None, ...] = ()
    """Every layer's survey."""

    @property
    def memory(self) -> Memory:
        """What is left of the scene when its views are gone."""
        return Memory(self.states, self.camera_tokens, self.plans)


class Scene:
    """One reading of one set of views by one aggregator."""

    def __init__(
        self,
        encoder: Encoder,
        aggregator: Aggregator,
        views: Views,
        conduct: Conduct,
        memory: Memory | None = None,
        own: bool = False,
        share: float | None = None,
    ) -> None:
        """With ``memory`` the views only read it: as queries, or where ``own`` says that they
        wrote it, once more as themselves (view 0 as the first, with the survey's plan). With
        ``share`` too they write to it once (:meth:`Backend.extend`), and read what results."""
        self.encoder, self.aggregator, self.conduct = encoder, aggregator, conduct
        self.groups, self.total, self.memory = views.groups, views.total, memory
        self.batch, self.own, self.share = views.batch, memory is None or own, share
        self.last = len(aggregator.specs) - 1
        self.tokens = conduct.shelf()
        self.contexts: list[Context] = []
        self.kept: list[Projection | None] = [None] * len(self.groups)
        self.features: list[list[Tensor]] = [[] for _ in self.groups]
        self.camera: list[Tensor] = []
        self.states: list[State] = []

    def read(self, feature_layers: tuple[int, ...]) -> Trunk:
        """Encode, then layer after layer; layer l+1 needs layer l's read of all views.

        A chunk is visited once a sweep: the visit of a layer's first sweep also finishes the
        layer before it.
        """
        self.slots = sorted(set(feature_layers))
        self._encode()
        for layer in range(self.last + 1):
            self.states.append(self._settle(layer))
        for n in range(len(self.groups)):
            self._leave(self.last, n, self.tokens.pop(n))
        found = tuple(tuple(f) for f in self.features)
        plans = tuple(self.plans)
        return Trunk(found, self._in_order(self.camera), tuple(self.states), plans)

    def _encode(self) -> None:
        descriptors = []
        for n, group in enumerate(self.groups):
            self.conduct.observe("encode", n, len(self.groups))
            images = group.images.to(self.encoder.patch.weight.device)
            flat = images.flatten(0, 1)
            patches = self.conduct.encode(self.encoder, flat, self.conduct.ahead)  # [B·V_c, N, E]
            patches = patches.unflatten(0, images.shape[:2])
            if self.memory is None:  # else its survey was made
                wide = torch.promote_types(patches.dtype, torch.float32)
                descriptors.append(normalize(patches.detach().mean(dim=2, dtype=wide), dim=-1))
            x = self.aggregator.start(patches, [self.own and i == 0 for i in group.ids])
            self.contexts.append(self._describe(group, x))
            self.tokens[n] = x
        self.conduct.observe("encode", len(self.groups), len(self.groups))
        self.plans = self._survey(descriptors)

    def _context(self, layer: int, n: int) -> Context:
        return replace(self.contexts[n], plan=self.plans[layer])

    def _describe(self, group: ViewGroup, tokens: Tensor) -> Context:
        rows, columns = group.grid
        special = tokens.shape[2] - rows * columns
        block = self.aggregator.block(0)
        rope = Rope.of_grid(
            group.grid,
            special,
            block.attn.width // block.attn.heads,
            tokens.device,
            torch.promote_types(tokens.dtype, torch.float32),
        )
        weight = None
        if group.weight is not None:
            ones = tokens.new_ones(*tokens.shape[:2], special, dtype=torch.float32)
            weight = torch.cat([ones, group.weight.flatten(2).to(ones)], dim=2)
        return Context(group.ids, group.grid, rope, weight)

    def _survey(self, descriptors: list[Tensor]) -> list[State | None]:
        """Each layer's plan; a survey runs once for each distinct backend and its options."""
        blocks = [self.aggregator.block(n) for n in range(len(self.aggregator.specs))]
        if self.memory is not None:
            known = self.memory.plans if self.own else ()
            return list(known) or [None] * len(blocks)
        everyone = self._in_order(descriptors)
        plans: dict[Any, State | None] = {}
        for spec, block in zip(self.aggregator.specs, blocks, strict=True):
            if spec not in plans:
                plans[spec] = block.attn.survey(everyone)
        return [plans[spec] for spec in self.aggregator.specs]

    def _in_order(self, rows: list[Tensor]) -> Tensor:
        """[B, V_c, …] of each chunk → [B, V, …] of all ranks' views in scene order."""
        local = torch.cat(rows, dim=1)
        ids = [i for group in self.groups for i in group.ids]
        if self.conduct.world.size == 1 and ids == sorted(ids):
            return local  # nothing is sent to the device, so nothing waits for it
        whole = self.conduct.world.gather(local, dim=1)
        order = self.conduct.world.gather(torch.tensor(ids, dtype=torch.long, device=local.device))
        return whole[:, order.argsort()]

    def _settle(self, layer: int) -> State:
        """Bring all views to one global block and write them: the memory they will read."""
        block, plan = self.aggregator.block(layer), self.plans[layer]
        if self.memory is not None and self.share is not None:
            state = self.memory.states[layer]
            delta = Delta.total(self._write(layer, 1, state)).all_reduce(self.conduct.world)
            return block.attn.extend(state, delta, self.share)
        if self.memory is not None:
            for n in range(len(self.groups)):
                self.tokens[n], _ = self._enter(layer, n)
                self.conduct.observe(f"layer {layer + 1}", n + 1, len(self.groups))
            return self.memory.states[layer]
        device = block.norm1.weight.device
        state = block.attn.begin(self.total, self.batch, device, plan)
        again, sweep = True, 0
        while again:
            sweep += 1
            delta = Delta.total(self._write(layer, sweep, state)).all_reduce(self.conduct.world)
            state, again = block.attn.settle(state, delta)
        return state

    def _write(self, layer: int, sweep: int, state: State) -> Iterator[Delta]:
        block = self.aggregator.block(layer)
        for n in range(len(self.groups)):
            x, normed = self._enter(layer, n) if sweep == 1 else (None, None)
            if x is not None:
                self.tokens[n] = x
            projection = self.kept[n]
            if projection is not None:
                delta = self.conduct.run(_write_again, block, projection, state)
            else:
                x, context = self.tokens[n] if x is None else x, self._context(layer, n)
                given = (block, x, normed, context, state)
                projection, delta = self.conduct.run(_project_write, *given)
                self.kept[n] = projection if self.conduct.keep else None
            self.conduct.observe(f"layer {layer + 1} sweep {sweep}", n + 1, len(self.groups))
            yield delta

    def _enter(self, layer: int, n: int) -> Carried:
        """A chunk's tokens as they come to a layer's global block: [B, V_c, P, C], and what that
        begins with."""
        x, normed = self.tokens[n], None
        if layer:
            x, normed = self._leave(layer - 1, n, x)
        queries = self.memory is not None  # project once, when they read
        then = self.aggregator.block(layer).norm1 if self.conduct.ahead and not queries else None
        rope = self.contexts[n].rope
        found: Carried = self.conduct.run(self.aggregator.frame, layer, x, rope, normed, then)
        return found

    def _leave(self, layer: int, n: int, frame: Tensor) -> Carried:
        """Let a chunk read what all have written; hand out what the heads need of it."""
        block, context = self.aggregator.block(layer), self._context(layer, n)
        projection, state = self.kept[n], self.states[layer]
        if self.conduct.witness is not None:
            if projection is None:
                projection = block.attn.project(block.norm1(frame), context)
            self.conduct.witness(layer, n, projection, state)
        ahead = self.conduct.ahead and layer < self.last
        then = self.aggregator.first_norm(layer + 1) if ahead else None
        given = (block, frame, context, projection, state, then)
        x, normed = self.conduct.run(_read, *given)
        self.kept[n] = None
        if layer in self.slots:
            tokens = torch.cat([frame, x], dim=-1)
            feature = self.conduct.feature(n, self.slots.index(layer), tokens)
            if feature is not None:
                self.features[n].append(feature)
        if layer == self.last:
            self.camera.append(torch.cat([frame[:, :, 0], x[:, :, 0]], dim=-1))
        return x, normed


def _project_write(
    block: GlobalBlock, x: Tensor, normed: Tensor | None, context: Context, state: State
) -> tuple[Projection, Delta]:
    normed = block.norm1(x) if normed is None else normed
    projection = block.attn.project(normed, context)
    return projection, block.attn.write(projection, state)


def _write_again(block: GlobalBlock, projection: Projection, state: State) -> Delta:
    """A later sweep's; a function of this module, for those are compiled in training."""
    return block.attn.write(projection, state)


def _read(
    block: GlobalBlock,
    x: Tensor,
    context: Context,
    projection: Projection | None,
    state: State,
    then: nn.LayerNorm | None,
) -> Carried:
    if projection is None:
        projection = block.attn.project(block.norm1(x), context)
    return block.read(x, projection, state, then)
