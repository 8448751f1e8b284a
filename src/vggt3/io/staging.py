"""An output folder, or file, that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from vggt3 import checks
from vggt3.files import make_beside, name_beside, sheltered

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

    All checks are made on entry (:func:`check_out`; ``keep``: files that must survive). If the
    block raises, Ctrl-C included, the new folder is removed and whatever ``out`` held before is
    untouched; an old ``out`` is only removed once the new one stands in its place. An error of
    the system that names no file (a full disk) is raised again with ``out``'s name.
    """
    place = check_out(out, overwrite, keep, judge)
    with sheltered(place, out) as partial:
        partial.mkdir()
        yield partial
        _swap_in(partial, place, overwrite)


@contextmanager
def staged_file(out: str | os.PathLike[str], overwrite: bool, magic: bytes) -> Iterator[Path]:
    """A new file, hidden beside ``out``, that gets its name at the end; see :func:`staged`."""
    place = check_file(out, overwrite, magic)
    with sheltered(place, out) as partial:
        yield partial
        came = os.path.lexists(place) and not overwrite
        checks.require(not came, f"OUT '{out}'", "not appear meanwhile", "a file")
        os.replace(partial, place)


def check_file(out: str | os.PathLike[str], overwrite: bool, magic: bytes) -> Path:
    """The real path of ``out`` if a file may be written there, else UsageError.

    With ``overwrite`` an existing file is accepted if it begins with ``magic``.
    """
    place = Path(os.path.realpath(Path(out).expanduser()))
    if os.path.lexists(place):
        checks.require(place.is_file(), f"OUT '{out}'", "be a file", "a folder")
        checks.require(overwrite, f"OUT '{out}'", NOT_YET, "an existing file")
        with place.open("rb") as file:
            same = file.read(len(magic)) == magic
        wanted = f"be a {place.suffix} file to be overwritten"
        checks.require(same, f"OUT '{out}'", wanted, "a file of another kind")
    _check_parent(place, f"OUT '{out}'")
    return place


def check_folder(folder: str | os.PathLike[str], name: str) -> None:
    """UsageError unless files may be written into ``folder``, which need not exist yet."""
    place = Path(os.path.realpath(Path(folder).expanduser()))
    what = f"{name} '{folder}'"
    if os.path.lexists(place):
        checks.require(place.is_dir(), what, "be a folder", "a file")
        told = "be a folder that can be written"
        checks.require(os.access(place, os.W_OK | os.X_OK), what, told, "a read-only one")
    else:
        _check_parent(place, what)


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
    if os.path.lexists(place):
        checks.require(place.is_dir(), f"OUT '{out}'", "be a folder", "a file")
        checks.require(overwrite, f"OUT '{out}'", NOT_YET, "an existing folder")
        reason = _why_not_ours(place, keep, judge)
        if reason:
            wanted = "hold earlier results of this command to be overwritten"
            checks.fail(f"OUT '{out}'", wanted, reason)
    _check_parent(place, f"OUT '{out}'")
    return place


def _check_parent(place: Path, what: str) -> None:
    parent = next(folder for folder in place.parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        kind = "a read-only folder" if parent.is_dir() else "a file"
        checks.fail(what, "be in a folder that can be written", f"{kind} '{parent}'")


def _why_not_ours(place: Path, keep: Sequence[Path], judge: Judge) -> str | None:
    """Why the folder ``place`` must not be replaced, or None."""
    if Path.cwd().is_relative_to(place):
        return "the current folder"
    for path in keep:
        if Path(os.path.realpath(path)).is_relative_to(place):
            return f"a folder with the photos themselves ('{path}')"
    return judge(place) if any(place.iterdir()) else None


def _swap_in(partial: Path, place: Path, overwrite: bool) -> None:
    """Give ``partial`` the name ``place``; an old folder there goes last."""
    if not os.path.lexists(place):
        os.rename(partial, place)
    elif overwrite:
        _replace(partial, place)
    else:
        _keep_beside(partial, place)


def _replace(partial: Path, place: Path) -> None:
    """Put ``partial`` where the folder ``place`` is, which comes back if that fails."""
    beside = name_beside(place, "old")
    old = beside / place.name
    try:
        make_beside(beside, place)
        os.rename(place, old)
        os.rename(partial, place)
        shutil.rmtree(beside, ignore_errors=True)
    except BaseException:
        if os.path.lexists(partial) and old.exists():
            os.rename(old, place)  # where it cannot go back, it stays where it is
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _keep_beside(partial: Path, place: Path) -> NoReturn:
    """Say where ``partial`` is kept, since somebody made ``place`` meanwhile."""
    beside = name_beside(place, "finished")
    try:
        make_beside(beside, place)
        os.rename(partial, beside / place.name)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    told = f"one; the scene is in '{beside / place.name}'"
    checks.fail(f"OUT '{place}'", "not appear meanwhile", told)


def check_writable(path: Path, name: str) -> None:
    """UsageError unless ``path`` can be written, whether it exists or not; nothing is changed.

    Tried, not asked: a file system may refuse whom its permissions let in.
    """
    new = not os.path.lexists(path)
    tried = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}") if new else path
    try:
        os.close(os.open(tried, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if new else 0), 0o666))
        if new:
            tried.unlink()
    except BaseException as error:
        if new:
            with suppress(OSError):
                tried.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        wanted = "be in a folder that can be written" if new else "be a file that can be written"
        checks.fail(name, wanted, f"'{path.parent if new else path}': {error.strerror}")
