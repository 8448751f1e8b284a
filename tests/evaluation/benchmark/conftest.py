"""A machine whose matmul rate is found at once."""

from __future__ import annotations

import pytest

from vggt3.evaluation.benchmark import machine


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIDES", {"cpu": (64,)})
    monkeypatch.setattr(machine, "BATCH_SECONDS", 0.001)
