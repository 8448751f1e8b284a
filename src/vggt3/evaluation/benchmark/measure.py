"""Every combination timed, a row as it is found; nothing is printed."""

from __future__ import annotations

import dataclasses
import gc
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vggt3 import checks
from vggt3.attention.registry import DEFAULT, LayerSpec, plan_layers
from vggt3.distributed import ALONE, World
from vggt3.evaluation.benchmark import equality, machine, rows
from vggt3.evaluation.benchmark.combinations import Combinations, Variant
from vggt3.evaluation.benchmark.operations import Counter
from vggt3.evaluation.benchmark.rows import Row
from vggt3.evaluation.record import source_version
from vggt3.inference.advice import SMALLER, advising
from vggt3.inference.engine import Engine, peak_bytes
from vggt3.inference.options import RunOptions
from vggt3.io.staging import check_writable
from vggt3.model.opening import open_model
from vggt3.types import Cameras, DenseView, ViewGroup, Views

DISTINCT = 32
"""Images drawn; more views repeat them."""
USUAL_SHARE = 0.4
"""Of the matmul rate that a run is expected to reach, to say beforehand how long it takes."""


class Discard:
    """A sink that lets every result go, where it was computed."""

    on_device = True

    def cameras(self, cameras: Cameras) -> None:
        """Let the cameras go."""

    def add(self, view: DenseView) -> None:
        """Let a view's maps go."""


@dataclass
class Watch:
    """An engine's observer that finds when the first encoding began and ended."""

    device: torch.device
    began: float | None = None
    seconds: float | None = None

    def observe(self, stage: str, done: int, total: int) -> None:
        """A step of :data:`vggt3.model.scene.Observer`."""
        if stage != "encode" or self.seconds is not None:
            return
        if self.began is None:
            self.began = time.perf_counter()
        if done == total:
            machine.synchronise(self.device)
            self.seconds = time.perf_counter() - self.began


@dataclass(frozen=True)
class Task:
    """One row to be."""

    variant: Variant
    specs: tuple[LayerSpec, ...]
    views: int
    size: tuple[int, int]
    facts: dict[str, Any]
    """What the row is of."""

    @property
    def key(self) -> str:
        """Of the row that it will be."""
        return Row(rows.OURS, self.views, facts=self.facts).key


@dataclass
class Benchmark:
    """Combinations on one machine, and the file of rows that is gone on with."""

    what: Combinations
    run: RunOptions
    output: Path | None = None
    again: bool = False
    """Measure rows that are there once more."""
    command: str = ""
    """Noted in every row."""
    world: World = ALONE
    """The processes that share each scene; all do the same, the first writes the file."""
    found: dict[str, Row] = field(default_factory=dict)
    """Rows by key: those of the file, then those measured."""

    def __post_init__(self) -> None:
        """Check everything, measure nothing.

        Raises:
            InputError: bad combinations, a file of another format.
        """
        self.device = self.run.resolve_device()
        self.dtype = self.run.resolve_dtype(self.device)
        self.on_gpu = self.device.type == "cuda"
        self.variants = self.what.variants(self.on_gpu)
        self.found = self.world.agreed(self._earlier)[0]
        self.first = open_model(self.variants[0].choice)
        self.tasks = self._tasks()
        done = [task for task in self.tasks if self._is_there(task)]
        self.kept = [] if self.again else done
        self.waiting = [task for task in self.tasks if task not in self.kept]
        self.rate, self.counter = 0.0, Counter(self.first.model)
        if self.waiting:
            rates = self.world.exchange(machine.matmul_rate(self.device, self.dtype))
            self.rate = sum(rates)

    def _earlier(self) -> dict[str, Row]:
        """The rows of the file, as the first process sees it."""
        if self.output is None or self.world.rank:
            return {}
        known = rows.read_rows(self.output) if self.output.exists() else []
        check_writable(self.output, f"OUT '{self.output}'")
        return rows.latest(known)

    @property
    def rows(self) -> list[Row]:
        """The rows of the combinations asked for that are there by now."""
        return [self.found[task.key] for task in self.tasks if task.key in self.found]

    def expected_seconds(self) -> float:
        """What the waiting rows would take at the usual share of the matmul rate."""
        total = sum(self._flops(task) or 0 for task in self.waiting)
        runs = 1 + self.what.repeat
        return total * runs / (self.rate * USUAL_SHARE) if self.waiting else 0.0

    def measure(self) -> Iterator[Row]:
        """Measure what is waiting; each row is in the file before the next is begun."""
        for variant in self.variants:
            tasks = [task for task in self.waiting if task.variant == variant]
            if tasks:
                yield from self._measure(variant, tasks)

    def _measure(self, variant: Variant, tasks: list[Task]) -> Iterator[Row]:
        is_first = variant == self.variants[0]
        model = (self.first if is_first else open_model(variant.choice)).model
        engine = Engine(model, self.run, self.world)
        checked = self.world.exchange(_checked(engine))
        kernels, refusal = next((found for found in checked if found[1]), checked[0])
        for task in tasks:
            facts = {**task.facts, "kernels": kernels, **self._origin()}
            row = Row(rows.OURS, task.views, problem=refusal, facts=facts)
            if refusal is None:
                row = self._row(engine, task, facts)
            self.world.agreed(partial(self._append, row))
            self.found = rows.latest([*self.found.values(), row])
            yield row
        if is_first:
            model.cpu()  # it stays for counting

    def _append(self, row: Row) -> None:
        if self.output is not None and self.world.rank == 0:
            rows.append(self.output, row)

    def _row(self, engine: Engine, task: Task, facts: dict[str, Any]) -> Row:
        try:
            with advising({SMALLER: "a smaller --size"}):
                timed = timings(engine, task.views, task.size, self.what.repeat, self.what.seed)
        except checks.RankError:
            raise
        except checks.InputError as error:
            fits = not isinstance(error, checks.PlanError)
            problem = f"does not {'run' if fits else 'fit'}: {error}"
        except (MemoryError, torch.OutOfMemoryError) as error:
            if self.world.size > 1 and isinstance(error, MemoryError):
                raise  # the others do not know of it
            problem = f"out of memory in spite of the plan: {str(error).partition(chr(10))[0]}"
        else:
            flops = self._flops(task)
            facts |= timed.facts()
            facts |= {"flops": flops, "matmul_flops_per_second": self.rate}
            if flops is not None:
                facts["matmul_share"] = flops / timed.seconds / self.rate
            return Row(rows.OURS, task.views, timed.seconds, timed.peak, None, facts)
        _let_go(self.device)
        return Row(rows.OURS, task.views, problem=problem, facts=facts)

    def _flops(self, task: Task) -> int | None:
        return self.counter.count(task.specs, task.views, task.size)

    def _is_there(self, task: Task) -> bool:
        row = self.found.get(task.key)
        return row is not None and row.problem is None

    def _tasks(self) -> list[Task]:
        _, config = self.what.model(self.on_gpu)
        settings = dataclasses.asdict(self.run)
        for name in ("device", "precision"):
            settings.pop(name)
        where = {
            "world": self.world.size,
            "precision": str(self.dtype).removeprefix("torch."),
            "device": machine.device_name(self.device),
            "run": settings,
        }
        weights = "" if self.first.trained else ", random weights"
        about = {"model": config.preset + weights, "fingerprint": self.first.fingerprint}
        found = []
        for variant in self.variants:
            named = {"sweeps": variant.sweeps, "options": dict(variant.options)}
            options = variant.choice.attention_options
            specs = plan_layers(variant.choice.attention or DEFAULT, options, config.layers)
            for size in self.what.sizes(config):
                for views in self.what.view_counts(self.on_gpu):
                    own = {**about, "attention": variant.attention, **named, "size": list(size)}
                    found.append(Task(variant, specs, views, size, {**own, **where}))
        return found

    def _origin(self) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        cuda = torch.version.cuda if self.device.type == "cuda" else None
        told: dict[str, Any] = {
            "command": self.command,
            "torch": torch.__version__,
            "cuda": cuda,
            "at": now,
        }
        if hasattr(os, "getloadavg"):
            told["load_average"] = round(os.getloadavg()[0], 2)
        return {**told, **source_version()}


@dataclass(frozen=True)
class Timings:
    """What the repeats of one combination gave."""

    repeats: tuple[float, ...]
    """Seconds of each timed run."""
    stages: dict[str, float]
    """Median seconds by stage, of several processes each the longest among those that hold
    views; of one process they add up to a little less than the whole."""
    peak: int | None
    """Bytes; None where the process's high mark stood above it before."""
    plan: dict[str, Any]
    notes: tuple[str, ...]
    """What the engine had to say, such as that memory ran out and the chunk was halved."""

    @property
    def seconds(self) -> float:
        """The median run."""
        return statistics.median(self.repeats)

    def facts(self) -> dict[str, Any]:
        """For a row."""
        told = {"repeats": list(self.repeats), "stages": self.stages, "plan": self.plan}
        return {**told, "notes": list(self.notes)} if self.notes else told


def timings(engine: Engine, views: int, size: tuple[int, int], repeat: int, seed: int) -> Timings:
    """Run a scene of random uint8 images that lie on the device: once to warm up, then timed.

    Of several processes each holds its share, and the slowest counts, stage by stage too; one
    that holds no view has no stages, only waits.

    Raises:
        InputError: the scene does not fit, or the backend cannot do what the options ask.
    """
    engine.plan_sizes([size] * views)
    world = engine.world
    try:
        scene = random_views(views, size, seed, world).to(engine.device)
    except torch.OutOfMemoryError as error:
        world.agree(str(error))
        raise
    repeats, stages = [], []
    _let_go(engine.device)
    before = peak_bytes(engine.device)
    known = machine.forget_peak(engine.device)
    for _ in range(1 + repeat):
        watch = Watch(engine.device)
        machine.synchronise(engine.device)
        world.agree()
        start = time.perf_counter()
        outcome = engine.run(scene, Discard(), watch.observe)
        machine.synchronise(engine.device)
        elapsed, pinning = time.perf_counter() - start, outcome.seconds.get("pinning", 0.0)
        spent = _with_encoding(outcome.seconds, watch.seconds) if scene.groups[0].ids else {}
        own = elapsed, pinning, spent
        told = world.exchange(own)
        repeats.append(max(each[0] for each in told) - max(each[1] for each in told))
        stages.append(_longest([each[2] for each in told]))
        peak, plan, notes = outcome.peak_bytes, outcome.plan, outcome.notes
        del outcome
    medians = {
        name: statistics.median(stage.get(name, 0.0) for stage in stages[1:]) for name in stages[1]
    }
    peaks = world.exchange(peak if known or peak > before else None)
    most = None if None in peaks else max(peak for peak in peaks if peak is not None)
    return Timings(tuple(repeats[1:]), medians, most, dict(plan.describe()), notes)


def _longest(stages: Sequence[dict[str, float]]) -> dict[str, float]:
    """By stage, the most seconds of any process."""
    names = dict.fromkeys(name for each in stages for name in each)
    return {name: max(each.get(name, 0.0) for each in stages) for name in names}


def random_views(views: int, size: tuple[int, int], seed: int, world: World = ALONE) -> Views:
    """This process's share of random uint8 images, the same for the same seed; at most 32
    differ."""
    generator = torch.Generator().manual_seed(seed)
    count = min(views, DISTINCT)
    images = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    ids = range(*world.share(views))
    held = images[torch.tensor(ids, dtype=torch.long) % count]
    return Views((ViewGroup(held[None], tuple(ids)),), views)


def _with_encoding(seconds: dict[str, float], encoding: float | None) -> dict[str, float]:
    """The engine's stages with encoding, which it counts among the layers, by itself."""
    if encoding is None or "encode" in seconds or seconds.get("layers", 0.0) < encoding:
        return seconds
    return {"encode": encoding, **seconds, "layers": seconds["layers"] - encoding}


def _checked(engine: Engine) -> tuple[dict[str, float], str | None]:
    """Each check's error, and why nothing may be timed if one failed."""
    try:
        found = equality.check_model(engine.model, engine.dtype)
    except checks.InputError:
        raise
    except Exception as error:  # a stranger's backend: its failure is a row, not the end
        return {}, f"refused: its equality check failed, {type(error).__name__}: {error}"
    failed = [check for check in found if not check.passed]
    told = "; ".join(f"{c.name} is {c.error:.1e} off its reference" for c in failed)
    refusal = f"refused: {told} (at most {failed[0].limit:.0e})" if failed else None
    return {check.name: float(f"{check.error:.2e}") for check in found}, refusal


def _let_go(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
