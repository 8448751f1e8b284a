"""``experiments/gpu_ablate.sh`` and ``gpu_wait.sh``: what a leg is called with and leaves."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYTHON = """#!/bin/bash
# In place of Python: writes down its words, and adds a file to the results.
if [ "$1" != -m ]; then echo "$*" >> "$CALLS.rendered"; exit; fi
while [ "$1" != -o ]; do [ "$1" = --times ] && times=$2; shift; done
echo "$CUDA_VISIBLE_DEVICES: $* times $times" >> "$CALLS"
mkdir -p "$2/scores"
echo row > "$2/scores/$BASHPID-${CUDA_VISIBLE_DEVICES}.json"
echo draft > "$2/scores/.draft"
echo table > "$2/table.md"
mkdir -p "$2/fits"
echo adapter > "$2/fits/$BASHPID.safetensors"
[ "$CUDA_VISIBLE_DEVICES" != "$FAILS" ]
"""


def leg(folder: Path, gpus: int, fails: str = "none", per_gpu: int = 1) -> int:
    """One leg in a checkout of its own; its machine has ``gpus`` GPUs."""
    for name, text in (("python", PYTHON), ("nvidia-smi", f"#!/bin/bash\nseq {gpus}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": str(folder / "python")}
    env |= {"OUT": str(folder / "out"), "WORK": str(folder / "work"), "FAILS": fails}
    env |= {"CALLS": str(folder / "calls"), "SITE": str(folder / "site"), "CACHE": "rooms"}
    env |= {"PER_GPU": str(per_gpu), "AHEAD": "0", "PAUSE": "0"}
    words = ["bash", str(ROOT / "experiments" / "gpu_ablate.sh"), "8", "x.yaml", "--points"]
    return subprocess.run(words, env=env, cwd=folder, timeout=60, capture_output=True).returncode


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_legs(tmp_path: Path) -> None:
    assert leg(tmp_path, gpus=2, per_gpu=2) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1].endswith("only") and calls[-2].endswith("only"), "times come last"
    work, rest = tmp_path / "work", "--cache rooms --workers 0 times"
    rows = [f"{n % 2}: -o {work} --row {n + 1}/4 --minutes 8 {rest} none" for n in range(4)]
    rows += [f"{n}: -o {work} --row {n + 1}/2 --minutes 8 {rest} only" for n in range(2)]
    told = [re.sub(r"--minutes [78]\.\d\d ", "--minutes 8 ", call) for call in calls]
    assert sorted(told) == sorted(rows)
    assert "render_exam.py x.yaml rooms" in (tmp_path / "calls.rendered").read_text()
    assert (tmp_path / "out" / "table.md").read_text() == "table\n"
    (tmp_path / ".carry").mkdir()
    for name in ("ablation.tgz", "adapters.tgz.00"):
        (tmp_path / "out" / name).rename(tmp_path / ".carry" / name)
    work.rename(tmp_path / "another machine's")
    (tmp_path / "calls").unlink()
    assert leg(tmp_path, gpus=1, fails="0") == 1, "a row that failed is not hidden"
    assert len((tmp_path / "calls").read_text().splitlines()) == 6, "memory may be there later"
    with tarfile.open(tmp_path / "out" / "ablation.tgz") as packed:
        names = packed.getnames()
    assert not [name for name in names if "draft" in name or name.endswith("safetensors")]
    assert len([name for name in names if name.endswith(".json")]) == 6 + 6
    with tarfile.open(tmp_path / "out" / "adapters.tgz.00") as packed:
        assert len(packed.getnames()) == 8, "of those that wait for their scores"


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_waiting(tmp_path: Path) -> None:
    """For a leg in the background; not for one that is not there, on a machine that costs."""

    def wait(seconds: int) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "experiments" / "gpu_wait.sh")
        words = ["bash", script, str(seconds), str(tmp_path / "leg")]
        env = {"PATH": os.environ["PATH"], "OUT": str(tmp_path / "home")}
        return subprocess.run(words, env=env, timeout=60, capture_output=True, text=True)

    began = time.monotonic()
    assert wait(30).returncode == 2 and time.monotonic() - began < 20
    (tmp_path / "leg").mkdir()
    for name in ("out.txt", "table.md", "ablation.tgz", "adapters.tgz.00", "log.txt"):
        (tmp_path / "leg" / name).write_text(name)
    assert "goes on" in wait(1).stdout
    (tmp_path / "leg" / "ended.txt").write_text("ended with 0")
    assert "ended with 0" in wait(30).stdout and time.monotonic() - began < 40
    left = {path.name for path in (tmp_path / "home").iterdir()}
    assert left == {"ablation.tgz", "adapters.tgz.00", "log.txt", "told.tgz"}
    with tarfile.open(tmp_path / "home" / "told.tgz") as packed:
        assert {"./out.txt", "./table.md", "./ended.txt"} == set(packed.getnames()) - {"."}
