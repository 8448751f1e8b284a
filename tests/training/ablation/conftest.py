"""A tiny backbone for all tests of a process, and a count of what is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.ablation.counting import Counted
from tests.training.ablation.toy import save_tiny


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)
