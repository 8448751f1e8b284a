"""Processes that train together, forked from one server that has imported what they need."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.multiprocessing.spawn import start_processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def together(size: int, work: Callable[..., None], *given: Any) -> None:
    """Call ``work(*given)`` in ``size`` processes that find each other as under torchrun."""
    # Of no effect where the server runs by now.
    multiprocessing.set_forkserver_preload([work.__module__, "torch._dynamo"])
    start_processes(_run, (size, free_port(), work, given), nprocs=size, start_method="forkserver")


def apart(
    size: int, work: Callable[..., None], *given: Any, waits_for: Sequence[int] | None = None
) -> list[int | None]:
    """The same, but nobody stops them when one fails: their exit codes, when those (by default
    all) have ended that are waited for."""
    multiprocessing.set_forkserver_preload([work.__module__])
    server, port = multiprocessing.get_context("forkserver"), free_port()
    started = [
        server.Process(target=_run, args=(rank, size, port, work, given)) for rank in range(size)
    ]
    for process in started:
        process.start()
    try:
        for rank in range(size) if waits_for is None else waits_for:
            started[rank].join(60)
        return [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()
            process.join()


def _run(
    rank: int, size: int, port: int, work: Callable[..., None], given: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    places = {"LOCAL_RANK": rank, "RANK": rank, "WORLD_SIZE": size, "NODE_RANK": 0}
    places["LOCAL_WORLD_SIZE"] = size
    os.environ.update({name: str(place) for name, place in places.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    work(*given)
