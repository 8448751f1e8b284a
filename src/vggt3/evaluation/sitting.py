"""A run over many scenes: rows as they are found, a file that is gone on with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from vggt3.evaluation.record import Record, Row, Task
from vggt3.inference.advice import FEWER, MEMORY, SMALLER, advising


class Sitting:
    """Scenes to be scored one after another; those that the record has are not done again."""

    tasks: list[Task]
    record: Record
    advice: ClassVar[Mapping[str, str | None]] = {SMALLER: None, FEWER: None, MEMORY: None}
    """What to say in place of what its command cannot be given, where a scene does not fit."""

    @property
    def waiting(self) -> list[Task]:
        """Scenes that are not scored yet."""
        return [task for task in self.tasks if task not in self.record.rows]

    def rows(self) -> Iterator[Row]:
        """Compute what is waiting; every row goes into the record, and the record to its file
        now and then, at the end, and where this stops."""
        waiting = self.waiting
        try:
            for (name, _), scene in zip(waiting, self._scenes(waiting), strict=True):
                with advising(self.advice):
                    row = self._row(name, scene)
                yield self.record.add(row)
        finally:
            # Where nothing was to be computed the file stays as it is, byte by byte.
            if waiting or not self.record.summarised:
                self.record.save(summary=not self.waiting)

    def run(self) -> Record:
        """Compute all that is waiting."""
        for _ in self.rows():
            pass
        return self.record

    def _scenes(self, tasks: Sequence[Task]) -> Iterable[Any]:
        """What the tasks are about, in their order."""
        raise NotImplementedError

    def _row(self, name: str, scene: Any) -> Row:
        raise NotImplementedError
