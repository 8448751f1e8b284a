"""The processes that ``torchrun`` has started, as one scene's ranks: joined, watched, left."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from vggt3 import checks
from vggt3.distributed import ALONE, World
from vggt3.inference.agreement import Agreeing
from vggt3.inference.options import RunOptions, neighbours
from vggt3.inference.watch import Problem, Watch

TO_JOIN = timedelta(minutes=10)
"""For all processes to come."""
TO_WAIT = timedelta(days=7)
"""In a collective, since one process may have much to do alone; the watch knows if one is gone."""
TO_HEAR = 2.0
"""Seconds in which a process that ends may hear of one that ended before."""
NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Crew:
    """This process among those that share the work."""

    world: World
    run: RunOptions
    """As given, with this process's own device."""
    watch: Watch | None = None

    @property
    def speaks(self) -> bool:
        """Whether this process prints, and writes what is one file for all."""
        return self.world.rank == 0


@contextmanager
def joined(run: RunOptions) -> Iterator[Crew]:
    """All processes that ``torchrun`` has started, or this one alone where it did not.

    Each takes a GPU of its own where ``run`` asks for a GPU or there is one. Where one fails, all
    leave the block: with the same error where it came to all (told once, by the first), else
    with a RankError that names the one that failed, was stopped, died or is silent.

    Raises:
        UsageError: torchrun's variables are not whole, or there are fewer GPUs than processes.
        RankError: another process is gone.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield Crew(ALONE, run)
        return
    for name in NEEDED:
        told = "be set where WORLD_SIZE is above 1, as torchrun does"
        checks.require(bool(os.environ.get(name)), name, told, "nothing")
    own = replace(run, device=_device(run))
    gpu = torch.device(own.device).type == "cuda"
    if gpu:
        torch.cuda.set_device(own.device)
    kind = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    dist.init_process_group(kind, timeout=TO_JOIN)
    default: Any = dist.group.WORLD
    patient = dist.new_group(backend=kind, timeout=TO_WAIT)
    world = Agreeing(dist.get_rank(), size, patient)
    watch = Watch(World.current())
    before = _heed_sigterm(world, watch)
    try:
        yield Crew(world, own, watch)
        world.exchange(None)
    except BaseException as error:
        found = _explained(error, world, watch)
        watch.close()
        for group in (patient, default):
            group.abort()  # what a GPU may be waiting for would keep this process from ending
        if found is error:
            raise
        raise found from error
    if before is not None:
        signal.signal(signal.SIGTERM, before)
    watch.leave()
    dist.destroy_process_group()


def _heed_sigterm(world: World, watch: Watch) -> Any:
    """Leave when told to, by torchrun above all, which stops those that are left when one is gone:
    that one is then named, and what a process is doing to leave in order is not cut short."""

    def heed(number: int, frame: object) -> None:
        if sys.exc_info()[0] is not None:
            return  # leaving already
        found = watch.wait(0.0, _is_grave)
        if found is not None:
            raise found.error(world)
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        return None  # Python lets no other thread say what a signal does
    return signal.signal(signal.SIGTERM, heed)


def _explained(error: BaseException, world: World, watch: Watch) -> BaseException:
    """What this process should say it ends with: the others hear of it, or it is of them."""
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        watch.tell("stopped", "a signal that stopped it")
        found = watch.wait(TO_HEAR, _is_grave)  # for torchrun stops those that are left
        return found.error(world) if found else error
    own = isinstance(error, (checks.InputError, OSError))  # what nobody else can have caused
    if isinstance(error, checks.RankError) or (not own and watch.wait(0.0, _is_grave)):
        found = watch.wait(TO_HEAR, _is_grave) or watch.wait(0.0, lambda problem: True)
        return found.error(world) if found else error
    told = (
        str(error) if isinstance(error, checks.InputError) else f"{type(error).__name__}: {error}"
    )
    watch.tell("failed", told)
    if world.rank and watch.wait(TO_HEAR, lambda p: p.rank < world.rank and p.told == told):
        return SystemExit(getattr(error, "exit_code", 1))  # said by the first process
    return error


def _is_grave(problem: Problem) -> bool:
    return problem.grave


def _device(run: RunOptions) -> str:
    """This process's own device: a GPU by its place on its machine, or as named."""
    device = run.resolve_device()
    if run.device == "auto" and device.type != "cuda":
        device = torch.device("cpu")
    wanted = "be auto, cuda or cpu where several processes share a scene"
    checks.require(device.type in ("cuda", "cpu"), "--device", wanted, run.device)
    if device.type == "cpu":
        return "cpu"
    several, here = neighbours(), torch.cuda.device_count()
    named = ":" in run.device
    checks.require(
        not named or several == 1,
        "--device",
        "be auto, cuda or cpu where several processes run on a machine, each on a GPU of its own",
        run.device,
    )
    if named:
        return str(device)
    checks.require(
        several <= here,
        "torchrun --nproc-per-node",
        f"be at most the {here} GPUs of the machine (or give --device cpu)",
        several,
    )
    return str(torch.device(device.type, _number("LOCAL_RANK", 0)))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "") or str(default)
    checks.require(text.isdecimal(), name, "be a whole number", f"'{text}'")
    return int(text)
