"""Files and folders that appear whole or not at all, whatever happens to who writes them."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vggt3 import checks
from vggt3.signals import unbroken

if sys.platform != "win32":
    import fcntl

UNOWNED = 60.0
"""Seconds within which a process makes what it has made its own."""
SHELTER = "partial"
"""In the names of the hidden folders that outputs are made in: no other hidden name is longer."""
TRIES = 5
"""How often what another process has come between is tried again."""


@contextmanager
def naming(path: str | os.PathLike[str], told: str = "") -> Iterator[None]:
    """Raise an error of the system that names no file (a full disk) again, with ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, f"{path}{told}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` (beside what that links to), with its ending, that takes its place at
    the end; whatever happens in the block, ``path`` is as it was or whole. Processes of several
    machines may replace the same one."""
    place = Path(os.path.realpath(path))
    beside = name_file_beside(place)
    try:
        with naming(path):
            yield beside
            beside.replace(place)
    finally:
        with unbroken():
            beside.unlink(missing_ok=True)


@contextmanager
def sheltered(place: Path, out: str | os.PathLike[str]) -> Iterator[Path]:
    """A path named like ``place`` in a hidden folder beside it, which is removed at the end; so
    are those that killed processes have left there."""
    # Both are known before anything is made: Ctrl-C may come between any two instructions.
    missing = [folder for folder in place.parents if not folder.exists()]
    shelter = name_beside(place, SHELTER)
    try:
        try:
            with naming(out, " (nothing was kept)"):
                _make_shelter(shelter, place)
                with _owned(shelter):
                    yield shelter / place.name  # Its own: what is written inside may mention it.
        finally:
            leave_shelter(shelter, place, missing)
    except BaseException:
        leave_shelter(shelter, place, missing)  # a signal may have come before it could begin
        raise


def _make_shelter(shelter: Path, place: Path) -> None:
    for left in reversed(range(TRIES)):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove_orphans(place)
            shelter.mkdir()
            return
        except OSError as error:
            if left and isinstance(error, (FileNotFoundError, FileExistsError)):
                continue  # another process makes the folder above, or fails and takes it along
            checks.fail(f"OUT '{place}'", "be in a folder that can be written", error.strerror)


def leave_shelter(shelter: Path, place: Path, missing: Sequence[Path]) -> None:
    """Remove ``shelter`` and those of the folders ``missing`` (deepest first) that are empty."""
    with unbroken():
        _clear(shelter, place)
        _remove_empty(missing)


def old_of(partial: Path) -> Path:
    """Where in its shelter is kept what ``partial`` replaces, until that is done."""
    return partial.with_name(f"{partial.name}.old")


def put_back(shelter: Path, place: Path) -> None:
    """Let what was to be replaced have its ``place`` again, if nothing stands there."""
    old = old_of(shelter / place.name)
    if os.path.lexists(old) and not os.path.lexists(place):
        with suppress(OSError):
            os.rename(old, place)


def _clear(shelter: Path, place: Path) -> None:
    put_back(shelter, place)
    if os.path.lexists(place) or not os.path.lexists(old_of(shelter / place.name)):
        shutil.rmtree(shelter, ignore_errors=True)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Tell other processes of this machine that this one lives, as long as it does."""
    if sys.platform == "win32":  # nobody asks there
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: nobody gets one there
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _remove_orphans(place: Path) -> None:
    """Remove what killed processes of this machine were writing ``place`` in: folders of our names,
    with nothing but that in them, that no process owns. A lock need not hold across machines, so
    those of others stay."""
    if sys.platform == "win32":
        return
    # Earlier versions ended the name with the process, or with a number behind it.
    begin = re.escape(f".{place.name}.{SHELTER}-{_host()}-")
    ours = re.compile(rf"{begin}\d+(-[0-9a-f]{{8}}|-\d{{1,3}})?")
    with suppress(OSError):
        for folder in [f for f in place.parent.iterdir() if ours.fullmatch(f.name)]:
            if not folder.is_symlink():
                _remove_orphan(folder, place)


def _remove_orphan(folder: Path, place: Path) -> None:
    old = old_of(Path(place.name)).name
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            young = time.time() - os.fstat(opened).st_mtime < UNOWNED
            if young and not os.path.lexists(folder / old):
                return  # its owner may be about to own it
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if {entry.name for entry in folder.iterdir()} <= {place.name, old}:
                _clear(folder, place)
        finally:
            os.close(opened)


def _host() -> str:
    """This machine's name as a part of a file's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", platform.node())[:32] or "here"


def name_beside(place: Path, purpose: str) -> Path:
    """A hidden folder beside ``place`` that does not exist and that nobody else will make."""
    unique = f"{os.getpid()}-{os.urandom(4).hex()}"
    return place.with_name(f".{place.name}.{purpose}-{_host()}-{unique}")


def name_file_beside(place: Path) -> Path:
    """Likewise a hidden file of the same ending."""
    return place.parent / f".{place.stem}.{os.urandom(5).hex()}{place.suffix}"


def check_length(hidden: Path, name: str) -> None:
    """UsageError unless the system takes names as long as that of ``hidden``, which will be made
    for ``name``: better now than when there is something to lose."""
    parent = next(folder for folder in hidden.parents if os.path.exists(folder))
    for path in (hidden, parent / hidden.name):
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                told = "have a shorter name (hidden ones beside it are longer)"
                checks.fail(name, told, error.strerror)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of ``folders`` (deepest first) that exist and are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return
