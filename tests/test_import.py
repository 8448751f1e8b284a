"""``import vggt3`` is free, and its names are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vggt3

HEAVY = ("torch", "lightning", "triton", "numpy", "PIL", "jsonargparse", "rich")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import vggt3", "import vggt3.cli"])
def test_import_loads_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & set(HEAVY)


def test_a_name_loads_its_module_when_it_is_used() -> None:
    loaded = loaded_by("import vggt3; vggt3.Views")
    assert "torch" in loaded
    assert not loaded & {"lightning", "triton"}


@pytest.mark.parametrize("name", sorted(vggt3._LAZY))
def test_public_name(name: str) -> None:
    assert name in dir(vggt3)
    assert getattr(vggt3, name).__module__.startswith(vggt3._LAZY[name])


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'reconstrukt'"):
        vggt3.reconstrukt  # noqa: B018
    with pytest.raises(ImportError):
        from vggt3 import nothing_of_this_name  # type: ignore[attr-defined]  # noqa: F401


def test_version() -> None:
    from importlib.metadata import version

    assert version("vggt3") == vggt3.__version__
