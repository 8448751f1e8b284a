"""``experiments/gpu_ablate.sh``: what a leg is called with, takes along and leaves."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYTHON = """#!/bin/bash
# In place of Python: writes down its words, and adds a file to the results.
while [ "$1" != -o ]; do shift; done
echo "$CUDA_VISIBLE_DEVICES: $*" >> "$CALLS"
mkdir -p "$2/scores"
echo row > "$2/scores/$(ls "$2/scores" | wc -l)-${CUDA_VISIBLE_DEVICES}.json"
echo draft > "$2/scores/.draft"
echo table > "$2/table.md"
[ "$CUDA_VISIBLE_DEVICES" != "$FAILS" ]
"""


def leg(folder: Path, gpus: int, fails: str = "none") -> int:
    """One leg in a checkout of its own; its machine has ``gpus`` GPUs."""
    for name, text in (("python", PYTHON), ("nvidia-smi", f"#!/bin/bash\nseq {gpus}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": str(folder / "python")}
    env |= {"OUT": str(folder / "out"), "WORK": str(folder / "work"), "FAILS": fails}
    env |= {"CALLS": str(folder / "calls"), "SITE": str(folder / "site")}
    words = ["bash", str(ROOT / "experiments" / "gpu_ablate.sh"), "8", "x.yaml", "--points"]
    return subprocess.run(words, env=env, cwd=folder, timeout=60, capture_output=True).returncode


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_legs(tmp_path: Path) -> None:
    assert leg(tmp_path, gpus=2) == 0
    calls = sorted((tmp_path / "calls").read_text().splitlines())
    work, rest = tmp_path / "work", "--minutes 8 --cache /tmp/rooms --workers"
    assert [call.rpartition(" ")[0] for call in calls] == [
        f"{n}: -o {work} --row {n + 1}/2 {rest}" for n in range(2)
    ]
    assert (tmp_path / "out" / "table.md").read_text() == "table\n"
    (tmp_path / ".carry").mkdir()
    (tmp_path / "out" / "ablation.tgz").rename(tmp_path / ".carry" / "ablation.tgz")
    work.rename(tmp_path / "another machine's")
    assert leg(tmp_path, gpus=1, fails="0") == 1, "a row that failed is not hidden"
    with tarfile.open(tmp_path / "out" / "ablation.tgz") as packed:
        names = sorted(Path(name).name for name in packed.getnames() if name.endswith(".json"))
        assert not [name for name in packed.getnames() if "draft" in name]
    assert len(names) == 3 and names[-1].endswith("-0.json"), names
