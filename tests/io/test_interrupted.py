"""An interrupt may come at any time: what is written is whole or not there."""

from __future__ import annotations

import contextlib
import dis
import functools
import gc
import os
import posix
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from vggt3 import files, signals
from vggt3.distributed import ALONE
from vggt3.io import shared_staging, staging
from vggt3.io.shared_staging import staged_together
from vggt3.io.staging import check_writable, staged, staged_file

OURS = {m.__file__ for m in (files, signals, staging, shared_staging, contextlib)}


@functools.cache
def looked_at(code: CodeType) -> set[int]:
    """The instructions before which the interpreter looks whether a signal has come: the first
    ones of a function, and those behind a call or a jump back."""
    found, last = {0}, ""
    for step in dis.get_instructions(code):
        if last.startswith(("RESUME", "CALL")):
            found.add(step.offset)
        if step.opname.startswith("JUMP_BACKWARD"):
            found.add(step.argval)
        last = step.opname
    return found


@contextmanager
def interrupted_at(instruction: int) -> Iterator[Callable[[], int]]:
    """Ctrl-C before that one of our instructions that may be interrupted. Yields how many there
    were; where signals wait for the end of what is under way, none is."""
    count, heeded = 0, signal.getsignal(signal.SIGINT)

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in OURS:
            return None
        frame.f_trace_opcodes = True
        if event != "opcode" or frame.f_lasti not in looked_at(frame.f_code):
            return watch
        if signal.getsignal(signal.SIGINT) is heeded:
            count += 1
            if count == instruction:
                signal.raise_signal(signal.SIGINT)
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield lambda: count
    finally:
        sys.settrace(before)


def folder(place: Path) -> None:
    with staged(place, overwrite=True) as made:
        (made / "cameras.json").write_text("{}")
        (made / "points.ply").write_text("new")


def together(place: Path) -> None:
    with staged_together(ALONE, place, overwrite=True) as made:
        (made / "cameras.json").write_text("{}")
        (made / "points.ply").write_text("new")


def file(place: Path) -> None:
    with staged_file(place, True, b"glTF") as made:
        made.write_bytes(b"glTF new")


def replaced(place: Path) -> None:
    with files.replacing(place) as beside:
        beside.write_text("new")


def tried(place: Path) -> None:
    check_writable(place, "OUT")


def found(place: Path) -> dict[str, str]:
    """All below ``place``: the files with their content, and empty folders."""
    paths = [p for p in place.rglob("*") if p.is_file() or not any(p.iterdir())]
    return {str(p.relative_to(place)): p.read_text() if p.is_file() else "" for p in paths}


def old_folder(place: Path) -> None:
    place.mkdir()
    (place / "cameras.json").write_text('{"pose_kind": "estimated"}')
    (place / "points.ply").write_text("old")


def old_file(place: Path) -> None:
    place.write_text("glTF old")


def nothing(place: Path) -> None:
    pass


Interrupted = AbstractContextManager[Callable[[], int]]
"""Yields how often it could have interrupted."""


@dataclass(frozen=True)
class Writing:
    """A way to write something, and what was there before."""

    write: Callable[[Path], None]
    where: str
    prepare: Callable[[Path], None] = nothing

    def whole(self, place: Path, uninterrupted: Interrupted) -> tuple[list[dict[str, str]], int]:
        """What may be found in the end: all as before, or all of the new; and the count."""
        place.mkdir()
        self.prepare(place / self.where)
        before = found(place)
        with uninterrupted as counted:
            self.write(place / self.where)
        return [before, found(place)], counted()

    def broken(self, place: Path, interrupted: Interrupted) -> None:
        """The same in a new folder, cut short."""
        place.mkdir()
        self.prepare(place / self.where)
        with pytest.raises(KeyboardInterrupt), interrupted:
            self.write(place / self.where)


@pytest.mark.parametrize(
    "writing",
    [
        Writing(folder, "out"),
        Writing(folder, "new/deep/out"),
        Writing(folder, "out", old_folder),
        Writing(together, "new/out"),
        Writing(together, "out", old_folder),
        Writing(file, "a.glb"),
        Writing(file, "new/a.glb"),
        Writing(file, "a.glb", old_file),
        Writing(replaced, "table.txt"),
        Writing(replaced, "table.txt", old_file),
        Writing(tried, "table.txt"),
    ],
)
def test_an_interrupt_at_any_instruction(tmp_path: Path, writing: Writing) -> None:
    ends, instructions = writing.whole(tmp_path / "whole", interrupted_at(0))
    assert instructions > 8
    for instruction in range(1, instructions + 1):
        place = tmp_path / str(instruction)
        writing.broken(place, interrupted_at(instruction))
        if found(place) not in ends:
            gc.collect()  # as a process does at its end: an ExitStack's frames refer to each other
        assert found(place) in ends, instruction


CALLS = ("mkdir", "rename", "replace", "rmdir", "unlink")


@contextmanager
def interrupted_in(*calls: int) -> Iterator[Callable[[], int]]:
    """Ctrl-C before these of all calls that change a folder. Yields how many calls there were."""
    count = 0

    def watched(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count in calls:
                signal.raise_signal(signal.SIGINT)
            return getattr(posix, name)(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, watched(name))
        yield lambda: count


@pytest.mark.parametrize(
    "writing",
    [
        Writing(folder, "new/deep/out"),
        Writing(folder, "out", old_folder),
        Writing(together, "new/out"),
        Writing(together, "out", old_folder),
        Writing(file, "new/a.glb"),
        Writing(replaced, "table.txt", old_file),
    ],
)
def test_a_second_interrupt(tmp_path: Path, writing: Writing) -> None:
    ends, calls = writing.whole(tmp_path / "whole", interrupted_in())
    for first in range(1, calls + 1):
        for second in range(first + 1, first + 8):
            place = tmp_path / f"{first}-{second}"
            writing.broken(place, interrupted_in(first, second))
            assert found(place) in ends, (first, second)


def test_signals_wait_and_come_then() -> None:
    came = []
    before = {number: signal.getsignal(number) for number in signals.STOPS}
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.unbroken():
            signal.raise_signal(signal.SIGTERM)
            with signals.unbroken():
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            assert came == [] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert came == [signal.SIGTERM] * 2
        with pytest.raises(KeyboardInterrupt) as told, signals.unbroken():
            signal.raise_signal(signal.SIGINT)
            raise OSError("of the block")
        assert isinstance(told.value.__context__, OSError)
        signal.raise_signal(signal.SIGTERM)
        assert len(came) == 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_interrupt_at_any_instruction_gives_the_handlers_back() -> None:
    before = {number: signal.getsignal(number) for number in signals.STOPS}

    def wait() -> None:
        with signals.unbroken():
            pass

    with interrupted_at(0) as counted:
        wait()
    for instruction in range(1, counted() + 1):
        with pytest.raises(KeyboardInterrupt), interrupted_at(instruction):
            wait()
        if signal.getsignal(signal.SIGINT) is not before[signal.SIGINT]:
            gc.collect()
        assert {number: signal.getsignal(number) for number in signals.STOPS} == before, instruction


def test_in_another_thread_nothing_waits(tmp_path: Path) -> None:
    thread = threading.Thread(target=folder, args=(tmp_path / "out",))
    thread.start()
    thread.join()
    assert found(tmp_path) == {"out/cameras.json": "{}", "out/points.ply": "new"}
