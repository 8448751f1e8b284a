"""What of an ablation one process does, and how; loads nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vggt3 import checks


@dataclass(frozen=True)
class Leg:
    """How much of the work this process does."""

    row: str = "1/1"
    """I/K: every K-th training from the I-th on (from 1), with all of its rows."""
    minutes: float | None = None
    """Stop after so long, before a training that would not end within; go on with the same
    command."""
    keep_adapters: bool = False
    """Keep adapters of at most 6 MB when their rows are complete."""
    times: str = "after"
    """Times a view: after all else; none, since beside other processes on the device they would be
    wrong; or only the times that are missing."""
    take_turns: bool = False
    """Train only while no other process with this option does on the same device: while one trains,
    others score, and memory is needed for one training."""

    def __post_init__(self) -> None:
        number, of = self.share
        checks.require(1 <= number <= of, "--row", "be I/K with I from 1 to K", f"'{self.row}'")
        checks.choose("--times", self.times, ("after", "none", "only"))
        given = self.minutes
        checks.require(given is None or given > 0, "--minutes", "be above 0", given)

    @property
    def share(self) -> tuple[int, int]:
        """I and K."""
        match = re.fullmatch(r"(\d+)/(\d+)", self.row)
        if match is None:
            checks.fail("--row", "look like 3/8", f"'{self.row}'")
        return int(match[1]), int(match[2])
