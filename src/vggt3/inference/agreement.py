"""Ranks that share a scene agree before anything crosses, so that one's trouble is all's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from vggt3 import checks
from vggt3.distributed import T, World


class OutOfMemoryElsewhere(torch.OutOfMemoryError):
    """Another rank ran out of memory: this one too gives up what it was at."""


class Agreeing(World):
    """A :class:`World` whose ranks tell each other that they are well before each collective.

    What they tell goes through host memory where the process group has a backend for it
    (``cpu:gloo,cuda:nccl``), so that no device waits for it.
    """

    @classmethod
    def among(cls, world: World) -> Agreeing:
        """The same ranks."""
        return cls(world.rank, world.size, world.group)

    def agree(self, problem: str | None = None) -> None:
        """Wait for all ranks; a ``problem`` is that this one is out of memory.

        Raises:
            OutOfMemoryElsewhere: on every rank that gave no problem, where one did.
            RankError: a rank is gone.
        """
        self._tell(0, problem)

    @contextmanager
    def crossing(self) -> Iterator[None]:
        """Agree, then let tensors cross."""
        self.agree()
        with self._present():
            yield

    def exchange(self, value: T) -> list[T]:
        """As in any world."""
        with self._present():
            return super().exchange(value)

    def counts(self, count: int, device: torch.device) -> list[int]:
        """Every rank's ``count``, told together with how it is."""
        return self._tell(count, None)

    def _tell(self, count: int, problem: str | None) -> list[int]:
        if self.size == 1:
            return [count]
        with self._present():
            mine = torch.tensor([problem is not None, count], device=self._desk())
            rows = [torch.zeros_like(mine) for _ in range(self.size)]
            dist.all_gather(rows, mine, group=self.group)
            table = torch.stack(rows).tolist()
            if not any(bad for bad, _ in table):
                return [int(told) for _, told in table]
        texts = self.exchange(problem)
        rank = next(n for n, text in enumerate(texts) if text is not None)
        if problem is None:
            raise OutOfMemoryElsewhere(f"{texts[rank]} on rank {rank}")
        return [count] * self.size

    def _desk(self) -> torch.device:
        """Where tensors lie that the ranks tell each other something with."""
        if "cpu:" in str(dist.get_backend_config(self.group)):
            return torch.device("cpu")
        return torch.device(torch.accelerator.current_accelerator() or "cpu")

    @contextmanager
    def _present(self) -> Iterator[None]:
        """A collective; where a rank is gone, what still waits for it is given up."""
        try:
            yield
        except RuntimeError as error:
            told = " ".join(str(error).split())
            group: Any = self.group or dist.group.WORLD
            group.abort()
            checks.fail(
                f"the {self.size} processes that share the scene",
                "all stay until it is done",
                f"'{told[:200]}'",
                error=checks.RankError,
            )
