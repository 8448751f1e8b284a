"""Rows as they are measured: figures that hang together, a file that is gone on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vggt3.attention.kernels import flops
from vggt3.evaluation.benchmark import machine, measure
from vggt3.evaluation.benchmark.combinations import Combinations
from vggt3.evaluation.benchmark.equality import Check
from vggt3.evaluation.benchmark.measure import Benchmark, Watch, random_views, timings
from vggt3.evaluation.benchmark.operations import Counter
from vggt3.evaluation.benchmark.rows import read_rows
from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

WHAT = Combinations(
    preset="tiny", attention="linear,ttt_mlp", views="1,3", sweeps="2", size="28x42", repeat=2
)
RUN = RunOptions(device="cpu")


def test_rows_hang_together(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    work = Benchmark(WHAT, RUN, out, command="vggt3 benchmark")
    assert work.expected_seconds() > 0
    found = list(work.measure())
    assert read_rows(out) == found == work.rows
    named = [(row.facts["attention"], row.views, row.facts["sweeps"]) for row in found]
    assert named == [("linear", 1, None), ("linear", 3, None), ("ttt_mlp", 1, 2), ("ttt_mlp", 3, 2)]
    for row in found:
        assert row.problem is None and row.seconds and len(row.facts["repeats"]) == 2
        assert min(row.facts["repeats"]) <= row.seconds <= max(row.facts["repeats"])
        stages = row.facts["stages"]
        assert set(stages) == {"encode", "layers", "cameras", "heads"}
        assert all(value > 0 for value in stages.values())
        share = row.facts["flops"] / row.seconds / row.facts["matmul_flops_per_second"]
        assert row.facts["matmul_share"] == pytest.approx(share)
        assert row.facts["kernels"]["flash, head width 32"] < 1e-5
        assert row.facts["commit"] and row.facts["torch"] == torch.__version__
        assert row.facts["plan"]["views"] == str(row.views)
        # Weights, torch and all are resident, so more than the model alone and less than a desk.
        assert row.peak_bytes is None or 50e6 < row.peak_bytes < 64e9
    # The dense heads' embeddings are done once for all views, and so small a model sees that.
    assert 2.0 < found[1].facts["flops"] / found[0].facts["flops"] < 3


def test_a_file_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.jsonl"
    less = replace(WHAT, attention="linear", views="2", repeat=1)
    (first,) = Benchmark(less, RUN, out).measure()
    work = Benchmark(replace(less, views="1,2"), RUN, out)
    assert [task.views for task in work.waiting] == [1]
    assert [row.views for row in work.measure()] == [1]
    assert work.rows[1] == first
    again = Benchmark(less, RUN, out, again=True)
    (second,) = again.measure()
    assert again.rows == [second] and second.key == first.key
    assert len(read_rows(out)) == 3
    assert Benchmark(less, replace(RUN, chunk=1), out).waiting  # another thing
    monkeypatch.setattr(machine, "matmul_rate", None)  # nothing waits: nothing is measured
    done = Benchmark(less, RUN, out)
    assert done.rows == [second] and not list(done.measure()) and done.expected_seconds() == 0


def test_what_does_not_fit_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    one = Engine(VGGT3.build(TINY, "softmax").eval(), RUN).plan_sizes([(56, 84)]).needed
    tight = replace(RUN, memory=str(int(1.05 * one)))
    what = replace(WHAT, attention="softmax", views="1,150", size="56x84", repeat=1)
    fits, too_large = Benchmark(what, tight, tmp_path / "rows.jsonl").measure()
    assert fits.problem is None
    assert str(too_large.problem).startswith("does not fit: the plan for 150 views must fit")
    wanted = "; give a smaller --size, fewer views, a backend with a bounded state, "
    assert str(too_large.problem).endswith(wanted + "or more --memory")
    assert too_large.seconds is None
    assert Benchmark(what, tight, tmp_path / "rows.jsonl").waiting  # asked again next time


def test_out_of_memory_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(measure, "timings", full)
    rows = list(Benchmark(replace(WHAT, attention="linear"), RUN).measure())
    assert [row.problem for row in rows] == [
        "out of memory in spite of the plan: CUDA out of memory."
    ] * 2


def test_no_figure_where_a_kernel_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the backend that fails, nothing is run; the other goes on."""
    true = measure.equality.check_model

    def check(model: VGGT3, dtype: torch.dtype) -> list[Check]:
        bad = [Check("ttt_mlp: write", 0.5, 1e-4)] if model.specs[0].name == "ttt_mlp" else []
        return true(model, dtype) + bad

    monkeypatch.setattr(measure.equality, "check_model", check)
    rows = list(Benchmark(replace(WHAT, views="1", repeat=1), RUN).measure())
    assert rows[0].seconds and rows[0].problem is None
    told = "refused: ttt_mlp: write is 5.0e-01 off its reference (at most 1e-04)"
    assert (rows[1].problem, rows[1].seconds) == (told, None)
    assert "flops" not in rows[1].facts


def test_a_stranger_that_breaks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise TypeError("no float64")

    monkeypatch.setattr(measure.equality, "check_model", breaks)
    (row,) = Benchmark(replace(WHAT, attention="linear", views="1"), RUN).measure()
    assert row.problem == "refused: its equality check failed, TypeError: no float64"


@pytest.mark.parametrize("backend", ["softmax", "linear", "ttt_mlp", "ttt_shortconv"])
def test_operations_are_those_of_a_run(backend: str) -> None:
    """Counted without values for a model with other backends = counted in a run with values."""
    model = VGGT3.build(TINY, backend).eval()
    views = random_views(2, (28, 42), 0)
    with torch.no_grad(), flops.counter() as counted:
        model(Views.from_tensor(views.groups[0].images))
    other = VGGT3.build(TINY, "softmax" if backend == "linear" else "linear").eval()
    assert Counter(other).count(model.specs, 2, (28, 42)) == counted.get_total_flops()


def test_what_cannot_be_counted_is_not() -> None:
    model = VGGT3.build(TINY, "linear").eval()
    few = VGGT3.build(TINY, "softmax", max_views=2).specs
    assert Counter(model).count(few, 3, (28, 42)) is None


def test_encoding_is_taken_out_of_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 13.0, 99.0, 100.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    watch = Watch(torch.device("cpu"))
    for stage, done in (("encode", 0), ("encode", 1), ("encode", 2), ("layer 1 sweep 1", 1)):
        watch.observe(stage, done, 2)
    watch.observe("encode", 0, 2)  # a replay encodes once more, among the heads
    assert watch.seconds == 3.0
    split: Callable[..., dict[str, float]] = measure._with_encoding
    found = split({"layers": 5.0, "heads": 1.0}, watch.seconds)
    assert found == {"encode": 3.0, "layers": 2.0, "heads": 1.0}
    assert split({"layers": 5.0}, None) == {"layers": 5.0}


def test_images_repeat_from_run_to_run() -> None:
    first, second = (random_views(40, (14, 28), 3).groups[0].images for _ in range(2))
    assert first.dtype == torch.uint8 and first.shape == (1, 40, 3, 14, 28)
    assert torch.equal(first, second) and torch.equal(first[:, 0], first[:, 32])
    assert not torch.equal(first[:, 0], first[:, 1])


def test_peak_memory_is_the_runs_own() -> None:
    """A large tensor that is gone must not be part of it."""
    engine = Engine(VGGT3.build(TINY, "linear"), RUN)
    if not machine.forget_peak(engine.device):
        pytest.skip("the high mark of memory cannot be set back here")
    large = torch.ones(2**28)  # 1 GiB
    del large
    timed: Any = timings(engine, 1, (28, 42), 1, 0)
    before = measure.peak_bytes(engine.device)
    large = torch.ones(2**28)
    assert measure.peak_bytes(engine.device) > before + 2**29
    del large
    assert timed.peak < measure.peak_bytes(engine.device) - 2**29


def test_the_rate_is_positive_and_named() -> None:
    device = torch.device("cpu")
    assert machine.matmul_rate(device, torch.float32) > 1e6
    assert f"{torch.get_num_threads()} thread" in machine.device_name(device)
