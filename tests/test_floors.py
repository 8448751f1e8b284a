"""Each module imports only from lower floors or from its own package (DESIGN.md, "Floors")."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "vggt3"

FLOORS = {
    "types": 0,
    "checks": 0,
    "geometry": 1,
    "distributed": 1,
    "files": 1,
    "pixels": 1,
    "signals": 0,
    "attention": 2,
    "model": 3,
    "losses": 3,
    "metrics": 3,
    "data": 4,
    "io": 4,
    "inference": 5,
    "evaluation": 6,
    "training": 7,
    "commands": 8,
    "front": 9,
}

FRONT = {"__init__", "__main__", "cli"}
"""The modules directly under vggt3 that count as one package, the front door."""

BESIDE = {("types", "checks")}
"""The one import along a floor: what travels is checked, and an input error is worded once."""


def package_of(module: str) -> str:
    """The package that owns a dotted name such as ``vggt3.geometry.camera``."""
    parts = module.split(".")
    return "front" if len(parts) == 1 or parts[1] in FRONT else parts[1]


def module_name(path: Path, source: Path = SOURCE) -> str:
    parts = ("vggt3", *path.relative_to(source).with_suffix("").parts)
    return ".".join(parts)


def imports(tree: ast.AST, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of each vggt3 module imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            if node.module == "vggt3":
                # The version is a word, not a room: anyone may write it into a file's header.
                given = [alias.name for alias in node.names if alias.name != "__version__"]
                names = [f"vggt3.{name}" if name in known else "vggt3" for name in given]
            else:
                names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "vggt3":
                yield node.lineno, name


def violations(module: str, text: str, known: set[str]) -> list[str]:
    own = package_of(module)
    if own not in FLOORS:
        return [f"{module}: package '{own}' has no floor"]
    found = []
    try:
        imported = list(imports(ast.parse(text), known))
    except AssertionError as error:
        return [f"{module}: {error}"]
    for line, name in imported:
        other = package_of(name)
        if other not in FLOORS:
            found.append(f"{module}:{line}: package '{other}' has no floor")
        elif other != own and FLOORS[other] >= FLOORS[own] and (own, other) not in BESIDE:
            found.append(f"{module}:{line}: floor {FLOORS[own]} imports {name}, {FLOORS[other]}")
    return found


MODULES = sorted(SOURCE.rglob("*.py"))
KNOWN = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_come_from_below(path: Path) -> None:
    assert violations(module_name(path), path.read_text("utf-8"), KNOWN) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("vggt3.geometry.camera", "import vggt3.model.blocks"),
        ("vggt3.geometry.camera", "from vggt3.attention import base"),
        ("vggt3.geometry.camera", "from vggt3 import model"),
        ("vggt3.geometry.camera", "from vggt3 import distributed"),
        ("vggt3.geometry.camera", "from vggt3 import reconstruct"),
        ("vggt3.geometry.camera", "from . import rotation"),
        ("vggt3.geometry.camera", "def f():\n    from vggt3 import cli"),
        ("vggt3.geometry.camera", "if TYPE_CHECKING:\n    from vggt3.io import photos"),
        ("vggt3.checks", "from vggt3 import types"),
        ("vggt3.utils.things", "import os"),
        ("vggt3.cli", "from vggt3.utils import things"),
    ],
)
def test_a_violation_is_seen(module: str, text: str) -> None:
    known = {"cli", "model", "types", "distributed", "geometry"}
    assert violations(module, text, known)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("vggt3.geometry.camera", "from vggt3.geometry.rotation import x\nimport torch"),
        ("vggt3.geometry.camera", "from vggt3 import checks, types"),
        ("vggt3.model.weights", "from vggt3 import __version__, checks"),
        ("vggt3.types", "from vggt3 import checks"),
        ("vggt3.cli", "from vggt3 import __version__, checks"),
        ("vggt3.__main__", "from vggt3.cli import main"),
    ],
)
def test_what_is_allowed_passes(module: str, text: str) -> None:
    assert violations(module, text, {"cli", "checks", "types", "geometry"}) == []
