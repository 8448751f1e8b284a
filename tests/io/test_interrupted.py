"""An interrupt may come between any two instructions: what is written is whole or not there."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from vggt3 import files
from vggt3.distributed import ALONE
from vggt3.io import shared_staging, staging
from vggt3.io.shared_staging import staged_together
from vggt3.io.staging import check_writable, staged, staged_file

OURS = {files.__file__, staging.__file__, shared_staging.__file__, contextlib.__file__}


@contextmanager
def interrupted_at(instruction: int) -> Iterator[Callable[[], int]]:
    """Ctrl-C before that one of our instructions that is carried out. Yields how many were."""
    count = 0

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in OURS:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == instruction:
                raise KeyboardInterrupt
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
    assert instructions > 20
    for instruction in range(1, instructions + 1):
        place = tmp_path / str(instruction)
        place.mkdir()
        prepare(place / where)
        with pytest.raises(KeyboardInterrupt), interrupted_at(instruction):
            write(place / where)
        if found(place) not in (before, after):
            gc.collect()  # as a process does at its end: an ExitStack's frames refer to each other
        assert found(place) in (before, after), instruction
