"""Who of the processes that share a scene is still there.

A collective does not tell: on a GPU it waits for a dead process as long as it is let. So each
process holds a socket to the first one, which the system closes when either ends, whatever ended
it. Every second each says that it is there; what one finds or suffers, all are told.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from vggt3 import checks
from vggt3.distributed import World

BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = 60.0
"""Seconds without a sign after which a process counts as gone (its machine may be)."""
GRACE = 10.0
"""Seconds for a process to leave by itself what it shared, once another is gone."""


class Problem(NamedTuple):
    """What happened to a process."""

    rank: int
    kind: str
    """lost, failed, or stopped (from outside)."""
    told: str

    @property
    def grave(self) -> bool:
        """Whether it came by itself."""
        return self.kind in ("lost", "failed")

    def error(self, world: World) -> checks.RankError:
        """For those that are left."""
        name = f"rank {self.rank} of {world.size}"
        try:
            checks.fail(name, "stay until all have done", self.told, error=checks.RankError)
        except checks.RankError as error:
            return error


class Watch:
    """Tells within a second, and says so, which of the processes of ``world`` has gone.

    Where the main thread cannot leave what it shares with the others (it may wait in a collective
    for one that is gone), the process is ended for it: what ``undo`` holds is called first.
    """

    def __init__(self, world: World, silence: float = SILENCE, grace: float = GRACE) -> None:
        """Connect; all processes call this at once."""
        self.world, self.silence, self.grace = world, silence, grace
        self.undo: list[Callable[[], object]] = []
        self.problems: list[Problem] = []
        self._lock = threading.Lock()
        self._left: set[int] = set()
        self._over = threading.Event()
        self._peers = _meet(world)
        self._seen = dict.fromkeys(self._peers, time.monotonic())
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def tell(self, kind: str, told: str) -> None:
        """Let the others know what happened to this process."""
        self._send({"rank": self.world.rank, "kind": kind, "told": told})

    def wait(self, seconds: float, wanted: Callable[[Problem], bool]) -> Problem | None:
        """The first problem ``wanted`` of other processes; None where none comes in time, or all
        have others."""
        until = time.monotonic() + seconds
        while True:
            found = [problem for problem in self.problems if wanted(problem)]
            everyone = len({problem.rank for problem in self.problems}) == self.world.size - 1
            if found or everyone or time.monotonic() > until:
                return found[0] if found else None
            time.sleep(0.02)

    def leave(self) -> None:
        """Say that this process has done, and close."""
        self._send({"rank": self.world.rank, "kind": "left", "told": ""})
        self.close()

    def close(self) -> None:
        """Watch nobody any longer."""
        self._over.set()
        self._thread.join()
        for peer in self._peers.values():
            peer.close()

    def _run(self) -> None:
        texts = dict.fromkeys(self._peers, b"")
        beat, since = 0.0, None
        while not self._over.is_set():
            now = time.monotonic()
            if now - beat >= BEAT:
                beat = now
                self._send({"rank": self.world.rank, "kind": "here", "told": ""})
            watched = [rank for rank in texts if rank not in self._left]
            ready, _, _ = select.select([self._peers[rank] for rank in watched], [], [], 0.1)
            for rank in watched:
                if self._peers[rank] in ready:
                    texts[rank] = self._receive(rank, texts[rank])
                elif now - self._seen[rank] > self.silence:
                    self._lose(rank, f"no sign of it for {self.silence:.0f} s")
            if self.problems:
                since = now if since is None else since
                if now - since > self.grace:
                    self._abandon()

    def _receive(self, rank: int, before: bytes) -> bytes:
        """Take what a peer says; what is left of it is the beginning of a line."""
        try:
            data = self._peers[rank].recv(65536)
        except OSError:
            data = b""
        if not data:
            self._lose(rank, "the end of its process")
            return b""
        self._seen[rank] = time.monotonic()
        *lines, rest = (before + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if said["kind"] == "left":
                self._left.add(said["rank"])
            elif said["kind"] != "here":
                self._note(Problem(said["rank"], said["kind"], said["told"]), came_from=rank)
        return rest

    def _lose(self, rank: int, told: str) -> None:
        self._left.add(rank)
        if not any(problem.rank == rank for problem in self.problems):
            self._note(Problem(rank, "lost", told), came_from=rank)

    def _note(self, problem: Problem, came_from: int) -> None:
        self.problems.append(problem)
        if self.world.rank == 0:
            self._send(problem._asdict(), but=came_from)

    def _send(self, said: dict[str, object], but: int | None = None) -> None:
        line = json.dumps(said).encode() + b"\n"
        with self._lock:
            for rank, peer in self._peers.items():
                if rank != but and rank not in self._left:
                    with contextlib.suppress(OSError):  # found to be gone when it is heard next
                        peer.sendall(line)

    def _abandon(self) -> None:
        """End this process from outside its main thread."""
        for undo in reversed(self.undo):
            with contextlib.suppress(Exception):
                undo()
        first = min(self.problems, key=lambda problem: problem.kind == "stopped")
        print(f"vggt3: {first.error(self.world)}", file=sys.stderr, flush=True)
        os._exit(checks.RankError.exit_code)


def _meet(world: World) -> dict[int, socket.socket]:
    """A socket from each process to the first one."""
    local = os.environ.get("LOCAL_WORLD_SIZE") == str(world.size)
    host = "127.0.0.1" if local else os.environ.get("MASTER_ADDR", "127.0.0.1")
    if world.rank:
        port, word = world.exchange((0, ""))[0]
        peer = socket.create_connection((host, port), timeout=SILENCE)
        peer.sendall(f"{word} {world.rank:08d}".encode())
        return {0: _ready(peer)}
    word, found = secrets.token_hex(16), dict[int, socket.socket]()
    both = socket.has_dualstack_ipv6() and not local
    family = socket.AF_INET6 if both else socket.AF_INET
    place = (host if local else "", 0)
    with socket.create_server(place, family=family, dualstack_ipv6=both) as server:
        server.settimeout(SILENCE)
        world.exchange((server.getsockname()[1], word))
        while len(found) < world.size - 1:
            peer, _ = server.accept()
            said = _introduction(peer, len(word) + 9)
            if secrets.compare_digest(said[: len(word)], word.encode()):
                found[int(said[len(word) :])] = _ready(peer)
            else:
                peer.close()  # a stranger
    return found


def _introduction(peer: socket.socket, length: int) -> bytes:
    """The first words of whoever connects; nothing where they do not come."""
    peer.settimeout(SILENCE / 4)
    with contextlib.suppress(OSError):
        return peer.recv(length, socket.MSG_WAITALL)
    return b""


def _ready(peer: socket.socket) -> socket.socket:
    peer.settimeout(SILENCE)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer
