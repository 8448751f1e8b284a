"""``scene.npz`` out of parts that several processes have written."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

AT_ONCE = 2**26
"""Bytes copied at a time."""


class _Piece(NamedTuple):
    """The members of a view, which follow one another in a part."""

    part: Path
    members: list[zipfile.ZipInfo]
    start: int
    stop: int


def join_archives(
    target: Path,
    parts: Sequence[Path],
    order: Sequence[str],  # names of all views
) -> None:
    """Write the archive that one process would have written with its views in ``order``.

    The records of ``parts`` (of :class:`~vggt3.io.export.scene_npz.SceneArchiveWriter`) are copied
    byte for byte, by the kernel where it can; only the table of contents is made anew. The first
    part becomes the archive itself where all that it holds comes first.
    """
    own = [_pieces(part) for part in parts]
    pieces = {name: piece for found in own for name, piece in found.items()}
    there = list(own[0]) if list(own[0]) == list(order[: len(own[0])]) else []
    if there:
        parts[0].rename(target)
    with target.open("r+b" if there else "wb") as out, zipfile.ZipFile(out, "w") as joined:
        place = 0
        for n, name in enumerate(order):
            piece = pieces[name]
            if n >= len(there):
                with piece.part.open("rb") as file:
                    _copy(file, piece.start, piece.stop, out, place)
            for member in piece.members:
                member.header_offset += place - piece.start
                joined.filelist.append(member)
                joined.NameToInfo[member.filename] = member
            place += piece.stop - piece.start
        joined.start_dir = place  # where closing writes the table of contents


def _pieces(part: Path) -> dict[str, _Piece]:
    """By view."""
    with zipfile.ZipFile(part) as archive:
        members, end = archive.infolist(), archive.start_dir
    found: dict[str, _Piece] = {}
    stops = [member.header_offset for member in members[1:]] + [end]
    for member, stop in zip(members, stops, strict=len(members) > 0):
        name = member.filename.partition("/")[2].removesuffix(".npy")
        piece = found.get(name) or _Piece(part, [], member.header_offset, stop)
        piece.members.append(member)
        found[name] = piece._replace(stop=stop)
    return found


def _copy(file: BinaryIO, start: int, stop: int, out: BinaryIO, place: int) -> None:
    """Bytes ``start`` to ``stop`` of a file to ``place`` in another."""
    by_kernel = hasattr(os, "copy_file_range")
    while start < stop:
        count = min(stop - start, AT_ONCE)
        if by_kernel:
            try:
                done = os.copy_file_range(file.fileno(), out.fileno(), count, start, place)
            except OSError:  # not on these file systems; what else is wrong will show again
                done = 0
            by_kernel = done > 0
        if not by_kernel:
            file.seek(start)
            out.seek(place)
            done = out.write(file.read(count))
            out.flush()
        start, place = start + done, place + done
