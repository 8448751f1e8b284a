"""Batches rendered where they are used, one ahead of the step that uses them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vggt3.data.procedural.bank import Bank
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scene import SceneBatch, SceneParameters

AHEAD = 2
"""Rendered batches that wait, at most."""


class Renderer:
    """Parameters on the host → pictures and truth on ``device``."""

    def __init__(self, device: torch.device, bank: Bank | None = None, samples: int = 1) -> None:
        self.device = device
        self.bank = None if bank is None else bank.to(device)
        self.samples = samples

    @torch.no_grad()
    def __call__(self, parameters: SceneParameters) -> SceneBatch:
        return render(parameters.to(self.device), self.bank, self.samples)


@dataclass(frozen=True)
class Finished:
    """What a rendering thread leaves at its end."""

    error: BaseException | None = None


class Rendered:
    """The batches of ``source``, rendered.

    On a GPU a thread renders on a stream of its own, so that neither its waits for the device
    nor the time it takes to draw delay a step.
    """

    def __init__(self, source: Iterable[SceneParameters], renderer: Renderer) -> None:
        self.source, self.renderer = source, renderer

    def __iter__(self) -> Iterator[SceneBatch]:
        if self.renderer.device.type != "cuda":
            return map(self.renderer, self.source)
        return self._ahead()

    def _ahead(self) -> Iterator[SceneBatch]:
        device = self.renderer.device
        ready: queue.Queue[tuple[SceneBatch, torch.cuda.Event] | Finished] = queue.Queue(AHEAD)
        stop = threading.Event()
        work = threading.Thread(target=self._work, args=(ready, stop), daemon=True)
        work.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, Finished):
                    if item.error is not None:
                        raise item.error
                    return
                batch, rendered = item
                current = torch.cuda.current_stream(device)
                current.wait_event(rendered)
                for field in fields(batch):
                    value = getattr(batch, field.name)
                    if isinstance(value, Tensor):
                        value.record_stream(current)
                yield batch
        finally:
            stop.set()
            while work.is_alive():
                _drain(ready)
                work.join(timeout=0.1)

    def _work(self, ready: queue.Queue, stop: threading.Event) -> None:
        device = self.renderer.device
        try:
            torch.cuda.set_device(device)
            with torch.cuda.stream(torch.cuda.Stream(device)):
                for parameters in self.source:
                    batch = self.renderer(parameters)
                    rendered = torch.cuda.Event()
                    rendered.record()
                    ready.put((batch, rendered))
                    if stop.is_set():
                        return
            ready.put(Finished())
        except BaseException as error:  # told to the thread that trains
            ready.put(Finished(error))


def _drain(ready: queue.Queue) -> None:
    while True:
        try:
            ready.get_nowait()
        except queue.Empty:
            return
