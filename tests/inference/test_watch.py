"""Who is gone is found out, whatever the others wait for."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.training.processes import apart
from vggt3 import checks
from vggt3.distributed import World
from vggt3.inference import ranks, watch
from vggt3.inference.options import RunOptions
from vggt3.inference.ranks import Crew, joined
from vggt3.inference.watch import Watch

CPU = RunOptions("cpu")


def say(folder: Path, *words: object) -> None:
    """Leave a line for the test."""
    with (folder / f"rank-{os.environ['RANK']}").open("a") as file:
        print(*words, file=file)


def heard(folder: Path, rank: int) -> str:
    return (folder / f"rank-{rank}").read_text().strip()


def at_work(folder: Path, act: Callable[[Crew], None]) -> None:
    """A crew that meets again and again, until ``act`` does something on its rank."""
    try:
        with joined(CPU) as crew:
            for n in range(200):
                if n == 3:
                    act(crew)
                crew.world.sum(torch.ones(3))
                time.sleep(0.01)
    except (checks.InputError, OSError) as error:
        say(folder, f"{type(error).__name__}: {error}")


def dies(crew: Crew) -> None:
    if crew.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def dies_and_the_others_fall_over_it(crew: Crew) -> None:
    """As where a GPU was waiting for it."""
    dies(crew)
    time.sleep(0.5)
    raise RuntimeError("NCCL communicator was aborted")


def first_dies(crew: Crew) -> None:
    if crew.world.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def dies_and_all_are_told_to_stop(crew: Crew) -> None:
    """As under torchrun, which stops those that are left."""
    others = [pid for pid in crew.world.exchange(os.getpid()) if pid != os.getpid()]
    if crew.world.rank == 1:
        for pid in others:
            os.kill(pid, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)


def fails(crew: Crew) -> None:
    if crew.world.rank == 1:
        raise OSError("no room left")


def all_fail(crew: Crew) -> None:
    checks.fail("a thing", "be right", "wrong")


@pytest.mark.parametrize(
    ("act", "gone", "told"),
    [
        (dies, 1, "the end of its process"),
        (dies_and_all_are_told_to_stop, 1, "the end of its process"),
        (dies_and_the_others_fall_over_it, 1, "the end of its process"),
        (first_dies, 0, "the end of its process"),
        (fails, 1, "OSError: no room left"),
    ],
)
def test_the_one_that_is_gone_is_named(
    tmp_path: Path, act: Callable[[Crew], None], gone: int, told: str
) -> None:
    started = time.monotonic()
    apart(3, at_work, tmp_path, act)
    assert time.monotonic() - started < 30
    expected = f"RankError: rank {gone} of 3 must stay until all have done, got {told}"
    assert {heard(tmp_path, rank) for rank in range(3) if rank != gone} == {expected}
    if act is fails:
        assert heard(tmp_path, gone) == "OSError: no room left"


def test_what_came_to_all_is_told_once(tmp_path: Path) -> None:
    codes = apart(3, at_work, tmp_path, all_fail)
    assert heard(tmp_path, 0) == "UsageError: a thing must be right, got wrong"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank-0"]
    assert codes == [0, 2, 2]


def stuck(folder: Path, act: str) -> None:
    """Rank 0 hears of nothing but through its watch, which is what it is for."""
    sys.stderr = (folder / f"stderr-{os.environ['RANK']}").open("w")
    dist.init_process_group("gloo")
    world = World.current()
    watching = Watch(world, silence=1.5 if act == "hangs" else 60, grace=0.3)
    watching.undo.append(lambda: say(folder, "undone"))
    world.exchange(None)
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL if act == "dies" else signal.SIGSTOP)
    time.sleep(60)


@pytest.mark.parametrize(
    ("act", "told"), [("dies", "the end of its process"), ("hangs", "no sign of it for 2 s")]
)
def test_a_process_that_waits_for_ever_is_ended(tmp_path: Path, act: str, told: str) -> None:
    started = time.monotonic()
    codes = apart(2, stuck, tmp_path, act, waits_for=[0])
    assert time.monotonic() - started < 30
    assert codes[0] == 1
    assert heard(tmp_path, 0) == "undone"
    expected = f"vggt3: rank 1 of 2 must stay until all have done, got {told}"
    assert (tmp_path / "stderr-0").read_text().strip() == expected


def in_peace(folder: Path) -> None:
    with joined(CPU) as crew:
        say(folder, crew.world.size, crew.run.device, crew.speaks, crew.world.share(5))
        time.sleep(crew.world.rank)
    say(folder, "left")
    time.sleep(2 * crew.world.rank)  # the first has ended when the last does


def test_leaving_in_peace_alarms_nobody(tmp_path: Path) -> None:
    assert apart(2, in_peace, tmp_path) == [0, 0]
    assert heard(tmp_path, 0) == "2 cpu True (0, 3)\nleft"
    assert heard(tmp_path, 1) == "2 cpu False (3, 5)\nleft"


def test_strangers_at_the_door_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows the word that only ranks have been told is let in."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    told: queue.Queue[Any] = queue.Queue()

    class First(World):
        def exchange(self, value: Any) -> list[Any]:
            port, _ = value
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(b"\xff" * 41)
            told.put(value)
            return [value]

    class Second(World):
        def exchange(self, value: Any) -> list[Any]:
            return [told.get(timeout=30), value]

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(watch._meet, Second(1, 2))
        found = watch._meet(First(0, 2))
        peers = found | other.result(timeout=30)
    assert sorted(peers) == [0, 1]
    peers[0].sendall(b"here")
    assert peers[1].recv(4) == b"here"
    for peer in peers.values():
        peer.close()


def test_alone_there_is_nothing_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(CPU) as crew:
        assert (crew.world.size, crew.run, crew.watch, crew.speaks) == (1, CPU, None, True)


BAD: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({"WORLD_SIZE": "two"}, {}, "WORLD_SIZE must be a whole number, got 'two'"),
    ({"WORLD_SIZE": "2"}, {}, "RANK must be set where WORLD_SIZE is above 1"),
    ({"LOCAL_WORLD_SIZE": "3"}, {"device": "cuda"}, "--nproc-per-node must be at most the 2 GPUs"),
    ({}, {"device": "cuda:1"}, "--device must be auto, cuda or cpu where several .*got cuda:1"),
]


@pytest.mark.parametrize(("variables", "options", "message"), BAD)
def test_what_cannot_be_joined(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    options: dict[str, Any],
    message: str,
) -> None:
    whole = dict.fromkeys(ranks.NEEDED, "0") | {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"}
    whole = {} if "WORLD_SIZE" in variables else whole
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", *ranks.NEEDED):
        monkeypatch.delenv(name, raising=False)
    for name, value in (whole | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(RunOptions, "resolve_device", lambda self: torch.device(self.device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(checks.UsageError, match=message), joined(RunOptions(**options)):
        pass


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(RunOptions, "resolve_device", lambda self: torch.device("cuda"))
    assert ranks._device(RunOptions(asked)) == "cuda:1"
    monkeypatch.setattr(RunOptions, "resolve_device", lambda self: torch.device("cpu"))
    assert ranks._device(RunOptions("auto")) == "cpu"
