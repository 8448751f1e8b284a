"""How much of an ablation is computed, and a stop in the middle of it."""

from __future__ import annotations

from typing import Any

import pytest

from vggt3.evaluation import examine
from vggt3.training.ablation import fits


class Counted:
    """How often something was done, and where it stops."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scenes = self.trainings = 0
        self.last: int | None = None
        row, train = examine.Examination._row, fits.train

        def score(examination: Any, name: str, scene: Any) -> Any:
            if self.scenes == self.last:
                raise KeyboardInterrupt
            self.scenes += 1
            return row(examination, name, scene)

        def learn(*args: Any) -> Any:
            self.trainings += 1
            return train(*args)

        monkeypatch.setattr(examine.Examination, "_row", score)
        monkeypatch.setattr(fits, "train", learn)
