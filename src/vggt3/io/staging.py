"""An output folder, or file, that appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vggt3 import checks
from vggt3.files import (
    SHELTER,
    TRIES,
    check_length,
    name_beside,
    name_file_beside,
    old_of,
    put_back,
    sheltered,
)
from vggt3.signals import unbroken

SCENE_FILES = ("cameras.json", "scene.npz", "points.ply", "preview.png")
"""What a scene's folder holds; a folder that holds anything else is never replaced."""
ANSWER_FILES = ("cameras.json", "scene.npz", "points.ply")
"""What a folder of localised photos holds; likewise."""
CONFIDENCE = "confidence"
"""Key of each localised photo in cameras.json, which no reconstructed one has."""

NOT_YET = "not exist yet (or pass --overwrite; in Python overwrite=True)"
"""What is wanted of a place to write to."""

Judge = Callable[[Path], str | None]
"""Why a folder that is not empty must not be replaced; None if it may."""
Refusal = tuple[str, str] | None
"""What a place to write to must be, and what it is; None if it may be written."""

RACES = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
"""What the system says where somebody else has put something there, or taken it away."""


def not_a_scene(place: Path) -> str | None:
    """Why the folder is no scene that ``reconstruct`` wrote, or None."""
    return _other_than(place, SCENE_FILES, answers=False)


def not_answers(place: Path) -> str | None:
    """Why the folder is not what ``localize`` wrote, or None."""
    return _other_than(place, ANSWER_FILES, answers=True)


def _other_than(place: Path, files: Sequence[str], *, answers: bool) -> str | None:
    """What the folder is, unless it holds ``files`` only and cameras of the right command."""
    cameras = place / "cameras.json"
    if not cameras.is_file():
        return "a folder with other things (no cameras.json)"
    try:
        content = json.loads(cameras.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    content = content if isinstance(content, dict) else {}
    kind = content.get("pose_kind", "estimated")
    if kind != "estimated":
        return f"a capture with poses of kind '{kind}'"
    frames = content.get("frames")
    listed = frames if isinstance(frames, list) else []
    asked = any(isinstance(frame, dict) and CONFIDENCE in frame for frame in listed)
    if listed and asked != answers:
        return f"what vggt3 {'localize' if asked else 'reconstruct'} wrote"
    strange = sorted(entry.name for entry in place.iterdir() if entry.name not in files)
    return f"a folder with '{strange[0]}', which vggt3 did not write" if strange else None


@contextmanager
def staged(
    out: str | os.PathLike[str],
    overwrite: bool = False,
    keep: Sequence[Path] = (),
    judge: Judge = not_a_scene,
) -> Iterator[Path]:
    """A new folder of the same name, hidden beside ``out``, that replaces it at the end.

    All checks are made on entry (:func:`check_out`; ``keep``: files that must survive), and again
    at the end: where ``out`` has become what must not be replaced, the new folder is kept beside
    it, and UsageError says where. If the block raises, Ctrl-C included, the new folder is removed
    and whatever ``out`` held before is untouched; an old ``out`` is only removed once the new one
    stands in its place. An error of the system that names no file (a full disk) is raised again
    with ``out``'s name.
    """
    place = check_out(out, overwrite, keep, judge)
    with sheltered(place, out) as partial:
        check_out(out, overwrite, keep, judge)  # an old one may have been put back just now
        partial.mkdir()
        yield partial
        _settle(partial, place, out, lambda: _refuse_folder(place, overwrite, keep, judge))


@contextmanager
def staged_file(out: str | os.PathLike[str], overwrite: bool, magic: bytes) -> Iterator[Path]:
    """A new file, hidden beside ``out``, that gets its name at the end; see :func:`staged`."""
    place = check_file(out, overwrite, magic)
    with sheltered(place, out) as partial:
        yield partial
        _settle(partial, place, out, lambda: _refuse_file(place, overwrite, magic))


def check_file(out: str | os.PathLike[str], overwrite: bool, magic: bytes) -> Path:
    """The real path of ``out`` if a file may be written there, else UsageError.

    With ``overwrite`` an existing file is accepted if it begins with ``magic``.
    """
    place = Path(os.path.realpath(Path(out).expanduser()))
    refused = _refuse_file(place, overwrite, magic)
    if refused:
        checks.fail(f"OUT '{out}'", *refused)
    check_place(place, f"OUT '{out}'")
    return place


def _refuse_file(place: Path, overwrite: bool, magic: bytes) -> Refusal:
    if not os.path.lexists(place):
        return None
    if not place.is_file():
        return "be a file", "a folder"
    if not overwrite:
        return NOT_YET, "an existing file"
    with place.open("rb") as file:
        same = file.read(len(magic)) == magic
    told = f"be a {place.suffix} file to be overwritten", "a file of another kind"
    return None if same else told


def check_folder(folder: str | os.PathLike[str], name: str) -> None:
    """UsageError unless files may be written into ``folder``, which need not exist yet."""
    place = Path(os.path.realpath(Path(folder).expanduser()))
    what = f"{name} '{folder}'"
    if os.path.lexists(place):
        checks.require(place.is_dir(), what, "be a folder", "a file")
        told = "be a folder that can be written"
        checks.require(os.access(place, os.W_OK | os.X_OK), what, told, "a read-only one")
    else:
        check_place(place, what)


def check_out(
    out: str | os.PathLike[str],
    overwrite: bool = False,
    keep: Sequence[Path] = (),
    judge: Judge = not_a_scene,
) -> Path:
    """The real path of ``out`` if a scene may be written there, else UsageError.

    With ``overwrite`` an existing folder is accepted if it is empty or holds what ``judge``
    knows as ours, none of the files ``keep`` lies in it, and nobody stands in it.
    """
    place = Path(os.path.realpath(Path(out).expanduser()))
    refused = _refuse_folder(place, overwrite, keep, judge)
    if refused:
        checks.fail(f"OUT '{out}'", *refused)
    check_place(place, f"OUT '{out}'")
    return place


def _refuse_folder(place: Path, overwrite: bool, keep: Sequence[Path], judge: Judge) -> Refusal:
    for _ in range(TRIES):
        if not os.path.lexists(place):
            return None
        with suppress(FileNotFoundError):  # another process is replacing it
            seen = place.stat()
            if not stat.S_ISDIR(seen.st_mode):
                return "be a folder", "a file"
            if not overwrite:
                return NOT_YET, "an existing folder"
            reason = _why_not_ours(place, keep, judge)
            if reason is None:
                return None
            if os.path.samestat(seen, place.stat()):
                return "hold earlier results of this command to be overwritten", reason
    return "be free to be replaced", "one that another process replaces all the time"


def check_place(place: Path, what: str) -> None:
    """UsageError unless something new may be made at ``place``, a real path."""
    parent = next(folder for folder in place.parents if folder.exists())
    writable = parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    if not writable and parent.exists():  # It may be gone: others make it and remove it, too.
        kind = "a read-only folder" if parent.is_dir() else "a file"
        checks.fail(what, "be in a folder that can be written", f"{kind} '{parent}'")
    check_length(name_beside(place, SHELTER), what)


def _why_not_ours(place: Path, keep: Sequence[Path], judge: Judge) -> str | None:
    """Why the folder ``place`` must not be replaced, or None."""
    with suppress(FileNotFoundError):  # of the current folder, where that has been removed
        if Path.cwd().is_relative_to(place):
            return "the current folder"
    for path in keep:
        if Path(os.path.realpath(path)).is_relative_to(place):
            return f"a folder with the photos themselves ('{path}')"
    return judge(place) if any(place.iterdir()) else None


def _settle(
    partial: Path, place: Path, out: str | os.PathLike[str], refusal: Callable[[], Refusal]
) -> None:
    """Give ``partial`` the name ``place``. Where that may not be by now, or cannot, it is kept
    beside it, and UsageError says where: it may be the work of a day."""
    for _ in range(TRIES):
        try:
            there = os.path.lexists(place)
            refused = refusal()
            if refused:
                break
            _swap(partial, place, there)
            return
        except OSError as error:
            refused = "be free to be replaced", error.strerror or "an error of the system"
            if error.errno not in RACES:
                break
    assert refused is not None
    wanted, got = refused
    kept = name_beside(place, "kept")
    with unbroken():
        put_back(partial.parent, place)
        os.rename(partial.parent, kept)
    told = f"{got}; what was made is in '{kept / place.name}'"
    checks.fail(f"OUT '{out}', at the end,", wanted, told)


def _swap(partial: Path, place: Path, there: bool) -> None:
    """Put ``partial`` where ``place`` is. What is ``there``, if it is a folder, waits in the
    shelter, which is removed, or gives it back if the new one does not come."""
    old = old_of(partial)
    with unbroken():
        wanted, whole = "stay until it is whole", os.path.lexists(partial)
        checks.require(whole, f"'{partial}'", wanted, "nothing", error=checks.DataError)
        if there and partial.is_dir():
            if os.path.lexists(old):
                shutil.rmtree(old)  # Another process was between: its folder is the old one now.
            os.rename(place, old)
        os.replace(partial, place)
        with suppress(OSError):
            os.rename(old, partial)  # No longer what goes back: half removed, it never may.


def check_writable(path: Path, name: str) -> None:
    """UsageError unless ``path`` can be written, whether it exists or not; nothing is changed.

    Tried, not asked: a file system may refuse whom its permissions let in.
    """
    beside = name_file_beside(Path(os.path.realpath(path)))
    check_length(beside, name)
    new = not os.path.exists(path)
    tried = beside if new else path
    how = os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else os.O_APPEND)
    try:
        os.close(os.open(tried, how, 0o666))
        if new:
            tried.unlink()
    except BaseException as error:
        if new and not isinstance(error, FileExistsError):
            with unbroken(), suppress(OSError):
                tried.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        wanted = "be in a folder that can be written" if new else "be a file that can be written"
        checks.fail(name, wanted, f"'{path.parent if new else path}': {error.strerror}")
