"""Progress on a terminal: one bar each for reading, encoding, the layers and the heads."""

from __future__ import annotations

import re
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed


class Bars:
    """A model's observer and a reader's progress as bars on stderr, gone when done.

    Silent where stderr is no terminal, and where not ``shown``.
    """

    def __init__(self, layers: int, shown: bool = True) -> None:
        self.layers = layers
        self.progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            console=Console(stderr=True),
            transient=True,
            disable=not (shown and sys.stderr.isatty()),
        )
        self.tasks: dict[str, TaskID] = {}

    def reading(self, done: int, total: int) -> None:
        """A photo was read."""
        self._show("reading", "reading", done, total)

    def observe(self, stage: str, done: int, total: int) -> None:
        """A step of :data:`vggt3.model.scene.Observer`: encode, layer N sweep S, heads."""
        layer = re.match(r"layer (\d+) sweep (\d+)", stage)
        if layer is None:
            name = {"encode": "encoding"}.get(stage, stage)
            self._show(name, name, done, total)
            return
        label = f"layer {layer[1]}/{self.layers} sweep {layer[2]}"
        self._show("layers", label, int(layer[1]) - 1 + done / total, self.layers)

    def _show(self, key: str, label: str, done: float, total: int) -> None:
        if key not in self.tasks:
            self.tasks[key] = self.progress.add_task(label, total=total)
        self.progress.update(self.tasks[key], description=label, completed=done, total=total)

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
