"""A step's kernels, recorded once for each shape of a batch and then replayed (CUDA graphs).

A training step of a small model is thousands of short kernels: on an H100 their launches took
twice as long as they did. A recording is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vggt3.data.procedural.scene import SceneBatch
from vggt3.distributed import World

Terms = Callable[[SceneBatch, slice], dict[str, Tensor]]
"""A batch and the views that the dense heads see → scalars, of which ``loss`` is minimised."""
WARM_UPS = 3
"""Steps before a recording: what compiles, measures and allocates at first use has done so."""
TOLERANCE = 0.05
"""Largest relative L2 distance of the replayed gradient from the computed one, in bf16."""


@dataclass(frozen=True)
class Recording:
    """One shape's kernels, what they read and what they write."""

    graph: torch.cuda.CUDAGraph
    inputs: SceneBatch
    names: tuple[str, ...]
    values: Tensor
    """[N] the terms."""


class Recorder:
    """Loss terms and gradients of batches; the gradients lie side by side in one tensor.

    Each parameter's ``grad`` is a view of :attr:`gradients` after each step; on a GPU it must stay
    it between steps: nothing may set it to None there.
    """

    def __init__(self, terms: Terms, parameters: Sequence[nn.Parameter]) -> None:
        self.terms, self.parameters = terms, list(parameters)
        like = self.parameters[0]
        self.gradients = torch.zeros(sum(p.numel() for p in parameters), device=like.device)
        self.recordings: dict[tuple[torch.Size, int | None], Recording] = {}
        self._attach()
        if like.is_cuda:
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream(like.device)

    def _attach(self) -> None:
        """Make each parameter's ``grad`` the view that it may have been bereft of."""
        first = 0
        for parameter in self.parameters:
            # An optimizer's fused step wants the strides of gradient and parameter to be equal.
            parameter.grad = self.gradients.as_strided(parameter.shape, parameter.stride(), first)
            first += parameter.numel()

    def step(self, batch: SceneBatch, shown: slice) -> dict[str, Tensor]:
        """The terms of a batch; leaves its gradient in :attr:`gradients`."""
        if not self.gradients.is_cuda:
            self._attach()
            names, values = self.compute(batch, shown)
            return dict(zip(names, values.unbind(), strict=True))
        key = (batch.images.shape, shown.start)
        if key not in self.recordings:
            self.recordings[key] = self._record(batch, shown)
        found = self.recordings[key]
        for field in fields(batch):
            getattr(found.inputs, field.name).copy_(getattr(batch, field.name))
        found.graph.replay()
        return dict(zip(found.names, found.values.clone().unbind(), strict=True))

    def average(self, world: World) -> None:
        """Make :attr:`gradients` the mean over the processes, which saw other scenes each."""
        if world.size > 1:
            dist.all_reduce(self.gradients, group=world.group)
            self.gradients /= world.size

    def compute(self, batch: SceneBatch, shown: slice) -> tuple[tuple[str, ...], Tensor]:
        """The same, kernel by kernel: the terms' names and values [N]."""
        kind = self.gradients.device.type
        # Weights that autocast had kept from before would be stale in every replay.
        with torch.autocast(
            kind,
            torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
            cache_enabled=False,
        ):
            terms = self.terms(batch, shown)
        found = torch.autograd.grad(terms["loss"], self.parameters)
        for parameter, gradient in zip(self.parameters, found, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
        return tuple(terms), torch.stack([term.detach().float() for term in terms.values()])

    def _record(self, batch: SceneBatch, shown: slice) -> Recording:
        """Warm up, record, and hold the recording to what the kernels themselves gave."""
        inputs = SceneBatch(**{f.name: getattr(batch, f.name).clone() for f in fields(batch)})
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS):
                names, values = self.compute(inputs, shown)
            wanted = self.gradients.clone()
            kept = torch.empty_like(values)
        current.wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            kept.copy_(self.compute(inputs, shown)[1])
        self.gradients.zero_()
        graph.replay()
        away = float((self.gradients - wanted).norm() / wanted.norm())
        if not away < TOLERANCE:
            raise RuntimeError(f"a replayed step gives another gradient: {away:.3g} away")
        return Recording(graph, inputs, names, kept)
