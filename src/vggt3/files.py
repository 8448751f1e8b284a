"""Files and folders that appear whole or not at all, whatever happens to who writes them."""

from __future__ import annotations

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

if sys.platform != "win32":
    import fcntl

UNOWNED = 60.0
"""Seconds within which a process makes what it has made its own."""


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
    """A file beside ``path``, with its ending, that takes its place at the end; whatever
    happens in the block, ``path`` is as it was or whole. Processes of several machines may
    replace the same one."""
    beside = path.with_name(f".{path.stem}.{os.urandom(5).hex()}{path.suffix}")
    try:
        with naming(path):
            yield beside
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def sheltered(place: Path, out: str | os.PathLike[str]) -> Iterator[Path]:
    """A path named like ``place`` in a hidden folder beside it, which is removed at the end; so
    are those that killed processes have left there."""
    # Both are known before anything is made: Ctrl-C may come between any two instructions.
    missing = [folder for folder in place.parents if not folder.exists()]
    shelter = name_beside(place, "partial")
    try:
        _make(place.parent, place)
        with naming(out, " (nothing was kept)"):
            _remove_orphans(place)
            make_beside(shelter, place)
            with _owned(shelter):
                yield shelter / place.name  # Its own name: what is written inside may mention it.
            shelter.rmdir()
    except BaseException:
        shutil.rmtree(shelter, ignore_errors=True)
        _remove_empty(missing)
        raise


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
    ours = re.compile(rf"\.{re.escape(place.name)}\.partial-{re.escape(_host())}-\d+-[0-9a-f]{{8}}")
    with suppress(OSError):
        for folder in [f for f in place.parent.iterdir() if ours.fullmatch(f.name)]:
            if not folder.is_symlink():
                _remove_orphan(folder, place.name)


def _remove_orphan(folder: Path, name: str) -> None:
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if time.time() - os.fstat(opened).st_mtime < UNOWNED:
                return  # its owner may be about to own it
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if {entry.name for entry in folder.iterdir()} <= {name}:
                shutil.rmtree(folder)
        finally:
            os.close(opened)


def _host() -> str:
    """This machine's name as a part of a file's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", platform.node())[:32] or "here"


def name_beside(place: Path, purpose: str) -> Path:
    """A hidden folder beside ``place`` that does not exist and that nobody else will make."""
    unique = f"{os.getpid()}-{os.urandom(4).hex()}"
    return place.with_name(f".{place.name}.{purpose}-{_host()}-{unique}")


def make_beside(folder: Path, place: Path) -> None:
    """Make ``folder``, with the permissions any new folder gets; UsageError names ``place``."""
    try:
        folder.mkdir()
    except OSError as error:
        checks.fail(f"OUT '{place}'", "be in a folder that can be written", error.strerror)


def _make(parent: Path, place: Path) -> None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        checks.fail(f"OUT '{place}'", "be in a folder that can be made", error.strerror)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of ``folders`` (deepest first) that exist and are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return
