"""Batches rendered where they are used, one ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

import torch
from torch import Tensor

from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.render import Renderer as Way
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scene import SceneBatch, SceneParameters


class Renderer:
    """Parameters on the host → pictures and truth on ``device``."""

    def __init__(
        self,
        device: torch.device,
        bank: Bank | None = None,
        samples: int = 1,
        way: Way = "auto",
    ) -> None:
        self.device, self.way = device, way
        self.bank = None if bank is None else bank.to(device)
        self.samples = samples

    @torch.no_grad()
    def __call__(self, parameters: SceneParameters | SceneBatch) -> SceneBatch:
        if isinstance(parameters, SceneBatch):  # read from a data set: there is nothing to draw
            moved = {
                f.name: getattr(parameters, f.name).to(self.device) for f in fields(parameters)
            }
            return SceneBatch(**moved)
        return render(parameters.to(self.device), self.bank, self.samples, self.way)


class Rendered:
    """The batches of ``source``, rendered.

    On a GPU the next batch is rendered on a stream of its own while the step before it runs.
    No thread does it: two threads that launch kernels spend their time waiting for each other.
    """

    def __init__(self, source: Iterable[SceneParameters | SceneBatch], renderer: Renderer) -> None:
        self.source, self.renderer = source, renderer

    def __iter__(self) -> Iterator[SceneBatch]:
        if self.renderer.device.type != "cuda":
            yield from map(self.renderer, self.source)
            return
        device = self.renderer.device
        stream = torch.cuda.Stream(device, priority=-1)  # its small kernels go first
        waiting: tuple[SceneBatch, torch.cuda.Event] | None = None
        for parameters in self.source:
            with torch.cuda.stream(stream):
                batch = self.renderer(parameters)
                rendered = torch.cuda.Event()
                rendered.record()
            if waiting is not None:
                yield _handed_over(*waiting)
            waiting = (batch, rendered)
        if waiting is not None:
            yield _handed_over(*waiting)


def _handed_over(batch: SceneBatch, rendered: torch.cuda.Event) -> SceneBatch:
    """The batch for the current stream, which waits for what renders it."""
    current = torch.cuda.current_stream(batch.images.device)
    current.wait_event(rendered)
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            value.record_stream(current)
    return batch
