"""``torchrun -m vggt3 benchmark``: rows of scenes that processes share, written by the first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import torch

from tests.training.processes import together
from vggt3 import cli
from vggt3.distributed import World
from vggt3.evaluation.benchmark import machine, measure
from vggt3.evaluation.benchmark.equality import Check
from vggt3.evaluation.benchmark.measure import random_views
from vggt3.evaluation.benchmark.rows import read_rows

WORDS = ("benchmark", "--preset", "tiny", "--device", "cpu", "--size", "28x42", "--repeat", "1")


def benchmark(folder: Path, case: str, *words: str) -> None:
    """The command on one rank; what it returns and says goes into files."""
    rank = int(os.environ["RANK"])
    machine.SIDES, machine.BATCH_SECONDS = {"cpu": (64,)}, 0.001
    if case == "one is wrong" and rank == 1:
        measure.equality.check_model = lambda *_: [Check("linear: read", 0.25, 1e-4)]  # type: ignore[assignment]
    if case == "no room" and rank == 1:
        measure.random_views = out_of_memory  # type: ignore[assignment]
    with (folder / f"said-{rank}").open("w") as said:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main([*WORDS, "--attention", "linear", *words])
        print("code", code, file=said)


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def said(folder: Path) -> list[str]:
    return [(folder / f"said-{rank}").read_text() for rank in range(2)]


def test_rows_of_two_processes(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    together(2, benchmark, tmp_path, "", "--views", "1,5", "-o", str(out))
    first, second = said(tmp_path)
    assert second == "code 0\n"
    assert "2/2 linear, 5 views of 28×42: " in first and first.endswith("code 0\n")
    assert "  ·  2 processes\n" in first
    one, five = read_rows(out)
    # The second process holds no view and waits for all that the first does, encoding included.
    assert set(one.facts["stages"]) == {"encode", "layers", "cameras", "heads"}
    assert sum(one.facts["stages"].values()) <= 1.02 * (one.seconds or 0)
    for row, own in ((one, 1), (five, 3)):
        assert row.facts["world"] == 2 and row.seconds and row.facts["flops"]
        told = f"{row.views} in 2 processes, {own} in the neediest"
        assert row.facts["plan"]["views"] == told
        share = row.facts["flops"] / row.seconds / row.facts["matmul_flops_per_second"]
        assert row.facts["matmul_share"] == pytest.approx(share)
    together(2, benchmark, tmp_path, "", "--views", "1,5", "-o", str(out))
    assert "2 rows are there already" in said(tmp_path)[0] and len(read_rows(out)) == 2


@pytest.mark.parametrize(
    ("case", "code", "problem"),
    [
        ("one is wrong", 1, "refused: linear: read is 2.5e-01 off its reference"),
        ("no room", 0, "out of memory in spite of the plan: CUDA out of memory."),
    ],
)
def test_what_one_cannot_none_does(tmp_path: Path, case: str, code: int, problem: str) -> None:
    out = tmp_path / "rows.jsonl"
    together(2, benchmark, tmp_path, case, "--views", "1,2", "-o", str(out))
    assert all(text.endswith(f"code {code}\n") for text in said(tmp_path))
    for row in read_rows(out):
        assert row.problem is not None and row.problem.startswith(problem), row.problem


def test_each_stage_is_the_slowest_processs() -> None:
    longest = measure._longest  # type: ignore[attr-defined]
    one, two = {"encode": 2.0, "layers": 3.0, "heads": 1.0}, {"encode": 1.0, "layers": 4.0}
    assert longest([one, two]) == {"encode": 2.0, "layers": 4.0, "heads": 1.0}
    assert longest([{}, two]) == longest([two]) == two


def test_shares_are_of_one_scene() -> None:
    whole = random_views(70, (28, 42), 0).groups[0]
    shares = [random_views(70, (28, 42), 0, World(rank, 3)) for rank in range(3)]
    assert [share.total for share in shares] == [70] * 3
    assert sum((share.ids for share in shares), ()) == whole.ids
    joined = torch.cat([share.groups[0].images for share in shares], dim=1)
    assert torch.equal(joined, whole.images)
    assert random_views(1, (28, 42), 0, World(1, 2)).ids == ()
