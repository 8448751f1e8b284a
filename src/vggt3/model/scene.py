"""The order in which a scene is read: the one path through the model.

Training calls it with whole groups; the engine with chunks of them, on any number of ranks, with
or without keeping projections; localisation with a frozen memory that is only read. Nothing else
knows how layers, chunks, sweeps and ranks follow each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from vggt3.attention.base import Context, Projection
from vggt3.attention.memory import Delta, State
from vggt3.attention.rope import Rope
from vggt3.distributed import ALONE, World
from vggt3.model.aggregator import Aggregator
from vggt3.model.blocks import GlobalBlock
from vggt3.model.encoder import Encoder
from vggt3.types import ViewGroup, Views

Observer = Callable[[str, int, int], None]
"""Called as (stage, done, total) while a scene is read."""


@dataclass(frozen=True)
class Conduct:
    """How a scene is read; changes memory and time, never the result."""

    world: World = ALONE
    """The ranks that share the views."""
    keep: bool = True
    """Keep the projections of a layer between its sweeps and its read, or make them again."""
    checkpoint: bool = False
    """In training, keep only block borders and compute the rest again in the backward pass."""
    observe: Observer = lambda stage, done, total: None
    """Progress."""

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


@dataclass(frozen=True)
class Trunk:
    """What the heads read."""

    features: tuple[tuple[Tensor, ...], ...]
    """For each chunk, for each feature layer: [B, V_c, P, 2C] after the frame | global block."""
    camera_tokens: Tensor
    """[B, V, 2C] of all views on all ranks, in scene order (of these views when querying)."""
    states: tuple[State, ...]
    """Every layer's settled state."""


class Scene:
    """One reading of one set of views by one aggregator."""

    def __init__(
        self,
        encoder: Encoder,
        aggregator: Aggregator,
        views: Views,
        conduct: Conduct,
        memory: Memory | None = None,
    ) -> None:
        self.encoder, self.aggregator, self.conduct = encoder, aggregator, conduct
        self.groups, self.total, self.memory = views.groups, views.total, memory
        self.batch = views.batch

    def read(self, feature_layers: tuple[int, ...]) -> Trunk:
        """Encode, then layer after layer; layer l+1 needs layer l's read of all views."""
        tokens, contexts = self._encode()
        features: list[list[Tensor]] = [[] for _ in tokens]
        states, camera = [], []
        last = len(self.aggregator.specs) - 1
        for layer in range(last + 1):
            for n, context in enumerate(contexts):
                tokens[n] = self.conduct.run(self.aggregator.frame, layer, tokens[n], context.rope)
            kept = [x if layer in feature_layers or layer == last else None for x in tokens]
            states.append(self._attend(layer, tokens, contexts))
            for n, frame in enumerate(kept):
                if frame is None:
                    continue
                if layer in feature_layers:
                    features[n].append(torch.cat([frame, tokens[n]], dim=-1))
                if layer == last:
                    camera.append(torch.cat([frame[:, :, 0], tokens[n][:, :, 0]], dim=-1))
                kept[n] = None
        found = tuple(tuple(f) for f in features)
        return Trunk(found, self._in_order(camera), tuple(states))

    def _encode(self) -> tuple[list[Tensor], list[Context]]:
        tokens, contexts, descriptors = [], [], []
        for n, group in enumerate(self.groups):
            self.conduct.observe("encode", n, len(self.groups))
            images = group.images.to(self.encoder.patch.weight.device)
            patches = self.encoder(images.flatten(0, 1))  # [B·V_c, N, E]
            patches = patches.unflatten(0, images.shape[:2])
            descriptors.append(normalize(patches.detach().float().mean(dim=2), dim=-1))
            first = [self.memory is None and i == 0 for i in group.ids]
            x = self.aggregator.start(patches, first)
            tokens.append(x)
            contexts.append(self._context(group, x))
        self.conduct.observe("encode", len(self.groups), len(self.groups))
        self.plans = self._survey(descriptors)
        return tokens, contexts

    def _context(self, group: ViewGroup, tokens: Tensor) -> Context:
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
            return [None] * len(blocks)
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

    def _attend(self, layer: int, tokens: list[Tensor], contexts: list[Context]) -> State:
        """One global block over all views: project and write, settle, read.

        ``tokens`` is rewritten entry by entry, so that old and new never all exist at once.
        """
        block, plan = self.aggregator.block(layer), self.plans[layer]
        contexts = [replace(context, plan=plan) for context in contexts]
        kept: list[Projection | None] = [None] * len(tokens)
        if self.memory is not None:
            state = self.memory.states[layer]
        else:
            state = block.attn.begin(self.total, self.batch, tokens[0].device, plan)
            again, sweep = True, 0
            while again:
                sweep += 1
                stage = f"layer {layer + 1} sweep {sweep}"
                writes = self._write(block, tokens, contexts, kept, state, stage)
                delta = Delta.total(writes).all_reduce(self.conduct.world)
                state, again = block.attn.settle(state, delta)
        for n, context in enumerate(contexts):
            tokens[n] = self.conduct.run(_read, block, tokens[n], context, kept[n], state)
            kept[n] = None
        return state

    def _write(
        self,
        block: GlobalBlock,
        tokens: list[Tensor],
        contexts: list[Context],
        kept: list[Projection | None],
        state: State,
        stage: str,
    ) -> Iterator[Delta]:
        for n, (x, context) in enumerate(zip(tokens, contexts, strict=True)):
            projection = kept[n]
            if projection is None:
                projection, delta = self.conduct.run(_project_write, block, x, context, state)
                kept[n] = projection if self.conduct.keep else None
            else:
                delta = self.conduct.run(block.attn.write, projection, state)
            self.conduct.observe(stage, n + 1, len(tokens))
            yield delta


def _project_write(
    block: GlobalBlock, x: Tensor, context: Context, state: State
) -> tuple[Projection, Delta]:
    projection = block.attn.project(block.norm1(x), context)
    return projection, block.attn.write(projection, state)


def _read(
    block: GlobalBlock,
    x: Tensor,
    context: Context,
    projection: Projection | None,
    state: State,
) -> Tensor:
    if projection is None:
        projection = block.attn.project(block.norm1(x), context)
    return block.read(x, projection, state)
