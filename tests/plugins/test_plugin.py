"""A stranger's backend: the tutorial's package, installed by pip and used by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggt3.io.export.cameras_json import load_cameras_json

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tests" / "plugins" / "vggt3_gated_linear"
PAGE = ROOT / "docs" / "attention" / "write-your-own.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the package into; building leaves nothing in the sources."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(
        PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__")
    )
    options = "--quiet --no-index --no-deps --no-build-isolation --disable-pip-version-check"
    pip = [sys.executable, "-m", "pip", "install", *options.split()]
    subprocess.run([*pip, "--target", str(folder / "site"), str(source)], check=True)
    return folder / "site"


def run(site: Path, *words: str, cwd: Path = ROOT) -> str:
    """Python with the plug-in on its path: what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_is_listed_and_measured(site: Path) -> None:
    told = json.loads(run(site, "-m", "vggt3", "attention", "--json"))
    found = next(b for b in told["backends"] if b["name"] == "gated_linear")
    assert found["origin"] == "vggt3-gated-linear 0.1"
    assert found["problem"] is None and found["linear"] and found["bounded"]
    assert [option["name"] for option in found["options"]] == ["opening"]
    assert found["options"][0]["about"].startswith("the gates' bias")
    plain = next(b for b in told["backends"] if b["name"] == "linear")
    extra = found["costs"][0]["flops"] - plain["costs"][0]["flops"]
    assert extra == 2 * 1024 * 16 * 1041 * 100  # the gate of 16 heads
    assert found["costs"][1]["state_bytes"] == plain["costs"][0]["state_bytes"]


def test_it_is_shown(site: Path) -> None:
    table = run(site, "-m", "vggt3", "attention")
    assert "gated_linear: linear attention with a learned gate for each token" in table
    assert "from vggt3-gated-linear 0.1" in table


def test_it_reconstructs(site: Path, tmp_path: Path) -> None:
    for n in range(2):
        pixels = np.random.default_rng(n).integers(0, 255, (70, 98, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    line = "-m vggt3 reconstruct 0.png 1.png -o scene --preset tiny --long-side 98"
    chosen = "--attention gated_linear --attention.opening 2"
    told = run(site, *line.split(), *chosen.split(), cwd=tmp_path)
    assert "gated_linear" in told
    assert len(load_cameras_json(tmp_path / "scene" / "cameras.json").frames) == 2


def test_it_keeps_the_contract(site: Path) -> None:
    """The very suite that the built-in backends are held to, with its equation."""
    suite = [f"tests/attention/test_{name}.py" for name in ("contract", "scene")]
    options = ["-q", "-k", "gated_linear", "-m", "not gpu", "-p", "no:cacheprovider"]
    told = run(site, "-m", "pytest", *suite, *options)
    counted = re.search(r"(\d+) passed", told)
    assert counted is not None and int(counted[1]) >= 20, told
    assert "skipped" not in told


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)


def test_the_tutorial_shows_this_package() -> None:
    assert (PACKAGE / "vggt3_gated_linear.py").read_text("utf-8") == blocks("python")[0]
    assert (PACKAGE / "pyproject.toml").read_text("utf-8") == blocks("toml")[0]
