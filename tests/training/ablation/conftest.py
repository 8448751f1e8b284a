"""A tiny backbone for all tests of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.ablation.toy import save_tiny


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("backbone"))
