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
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from vggt3 import files
from vggt3.distributed import ALONE
from vggt3.io import shared_staging, staging
from vggt3.io.shared_staging import staged_together
from vggt3.io.staging import check_writable, staged, staged_file

OURS = {files.__file__, staging.__file__, shared_staging.__file__, contextlib.__file__}


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


@pytest.mark.parametrize(
    ("write", "where", "prepare"),
    [
        (folder, "out", nothing),
        (folder, "new/deep/out", nothing),
        (folder, "out", old_folder),
        (together, "new/out", nothing),
        (together, "out", old_folder),
        (file, "a.glb", nothing),
        (file, "new/a.glb", nothing),
        (file, "a.glb", old_file),
        (replaced, "table.txt", nothing),
        (replaced, "table.txt", old_file),
        (tried, "table.txt", nothing),
    ],
)
def test_an_interrupt_at_any_instruction(
    tmp_path: Path,
    write: Callable[[Path], None],
    where: str,
    prepare: Callable[[Path], None],
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    prepare(whole / where)
    before = found(whole)
    with interrupted_at(0) as counted:
        write(whole / where)
    after, instructions = found(whole), counted()
    assert instructions > 8
    for instruction in range(1, instructions + 1):
        place = tmp_path / str(instruction)
        place.mkdir()
        prepare(place / where)
        with pytest.raises(KeyboardInterrupt), interrupted_at(instruction):
            write(place / where)
        if found(place) not in (before, after):
            gc.collect()  # as a process does at its end: an ExitStack's frames refer to each other
        assert found(place) in (before, after), instruction


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
    ("write", "where", "prepare"),
    [
        (folder, "new/deep/out", nothing),
        (folder, "out", old_folder),
        (together, "new/out", nothing),
        (together, "out", old_folder),
        (file, "new/a.glb", nothing),
        (replaced, "table.txt", old_file),
    ],
)
def test_a_second_interrupt(
    tmp_path: Path,
    write: Callable[[Path], None],
    where: str,
    prepare: Callable[[Path], None],
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    prepare(whole / where)
    before = found(whole)
    with interrupted_in() as counted:
        write(whole / where)
    after = found(whole)
    for first in range(1, counted() + 1):
        for second in range(first + 1, first + 8):
            place = tmp_path / f"{first}-{second}"
            place.mkdir()
            prepare(place / where)
            with pytest.raises(KeyboardInterrupt), interrupted_in(first, second):
                write(place / where)
            assert found(place) in (before, after), (first, second)


def test_signals_wait_and_come_then() -> None:
    came = []
    before = {number: signal.getsignal(number) for number in files.STOPS}
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with files.unbroken():
            signal.raise_signal(signal.SIGTERM)
            with files.unbroken():
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            assert came == [] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert came == [signal.SIGTERM] * 2
        with pytest.raises(KeyboardInterrupt) as told, files.unbroken():
            signal.raise_signal(signal.SIGINT)
            raise OSError("of the block")
        assert isinstance(told.value.__context__, OSError)
        signal.raise_signal(signal.SIGTERM)
        assert len(came) == 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_interrupt_at_any_instruction_gives_the_handlers_back() -> None:
    before = {number: signal.getsignal(number) for number in files.STOPS}

    def wait() -> None:
        with files.unbroken():
            pass

    with interrupted_at(0) as counted:
        wait()
    for instruction in range(1, counted() + 1):
        with pytest.raises(KeyboardInterrupt), interrupted_at(instruction):
            wait()
        if signal.getsignal(signal.SIGINT) is not before[signal.SIGINT]:
            gc.collect()
        assert {number: signal.getsignal(number) for number in files.STOPS} == before, instruction


def test_in_another_thread_nothing_waits(tmp_path: Path) -> None:
    thread = threading.Thread(target=folder, args=(tmp_path / "out",))
    thread.start()
    thread.join()
    assert found(tmp_path) == {"out/cameras.json": "{}", "out/points.ply": "new"}
