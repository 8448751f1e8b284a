"""From what was typed to a list of photo files: folders, globs, text files, single files."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vggt3 import checks

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""What photos may be named by: a path, a glob, a text file of paths, or a list of these."""

PHOTO_EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".mpo",
    ".png",
    ".webp",
    ".avif",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".jp2",
    ".tga",
    ".ppm",
    ".pgm",
    ".pnm",
)
"""What a folder or a glob contributes; a file named by itself is tried whatever its name."""

VIDEO_EXTENSIONS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".wmv",
    ".flv",
    ".3gp",
    ".ogv",
)

LIST_EXTENSIONS = (".txt", ".lst", ".list")


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is named like a video."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def names_video(source: Source) -> bool:
    """Whether the source is, or holds, a video."""
    entries = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return any(is_video(entry) for entry in entries)


def find_photos(source: Source) -> list[Path]:
    """The photo files that ``source`` names, each once.

    A folder gives the photos directly inside it and a glob the photos it matches, both in
    natural order (``frame2`` before ``frame10``, hidden files left out); a text file
    (``.txt .lst .list``) gives one path a line, relative to itself, lines starting with ``#``
    left out; anything else is taken as a photo. A list gives all of its entries in turn. What is
    named like a photo and is none (a folder, a link to nothing) is among them: reading says so.
    Raises :class:`~vggt3.checks.DataError` where nothing is found.
    """
    entries = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    checks.require(bool(entries), "photos", "name at least one file or folder", "an empty list")
    by_place: dict[str, Path] = {}
    for entry in entries:
        for path in _find_one(entry):
            by_place.setdefault(os.path.abspath(path), path)
    return list(by_place.values())


def existing(path: str | os.PathLike[str], named_by: str = "photos") -> Path:
    """``path`` if it exists; else DataError, with the nearest spelling beside it if any."""
    checks.require(bool(os.fspath(path)), named_by, "name a file or folder ('.' is this one)", "''")
    place = Path(path).expanduser()
    if not place.exists():
        hint = _hint(place)
        checks.fail(
            named_by,
            "name an existing file or folder",
            f"'{path}'{hint}",
            error=checks.DataError,
        )
    return place


def unusable(path: Path) -> str | None:
    """Why ``path`` cannot hold a photo, whatever is in it, or None: such a thing is not opened."""
    if not path.exists():
        return "a link to nothing" if path.is_symlink() else "no such file"
    if path.is_dir():
        return "a folder, no regular file"
    return None if path.is_file() else "no regular file"


def relative_names(paths: Sequence[Path]) -> list[str]:
    """A distinct name for each file: its path below the deepest folder that holds them all."""
    absolute = [Path(os.path.abspath(path)) for path in paths]
    try:
        root = Path(os.path.commonpath([path.parent for path in absolute]))
    except ValueError:  # Windows drives have no folder in common.
        return [_text(path.as_posix().replace(":", "").lstrip("/")) for path in absolute]
    return [_text(path.relative_to(root).as_posix()) for path in absolute]


def _text(name: str) -> str:
    r"""``name`` as UTF-8 can hold it: bytes that are no text become ``\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key under which digits count as numbers and case does not matter."""
    parts = re.findall(r"\d+|\D+", str(path).casefold())
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts], str(path)


def _find_one(entry: str | os.PathLike[str]) -> list[Path]:
    text = os.path.expanduser(os.fspath(entry))
    if glob.has_magic(text) and not os.path.exists(text):
        return _from_glob(text)
    path = existing(entry)
    if path.is_dir():
        return _from_folder(path)
    if path.suffix.lower() in LIST_EXTENSIONS:
        return _from_list(path)
    return [path]


def _from_folder(folder: Path) -> list[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        checks.fail(str(folder), "be a readable folder", error.strerror, error=checks.DataError)
    photos = _photos_among(entries)
    if not photos:
        _fail_empty(f"folder '{folder}'", entries, _subfolders_with_photos(folder))
    return photos


def _from_glob(pattern: str) -> list[Path]:
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
    photos = _photos_among(matches)
    if not photos:
        _fail_empty(f"pattern '{pattern}'", matches, [])
    return photos


def _from_list(listing: Path) -> list[Path]:
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        checks.fail(
            f"'{listing}'",
            "be a text file (UTF-8) with one path a line",
            error,
            error=checks.DataError,
        )
    photos = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            place = listing.parent / Path(entry).expanduser()
            photos.append(existing(place, f"'{listing}' line {number}"))
    checks.require(
        bool(photos),
        f"'{listing}'",
        "list at least one path",
        "none",
        error=checks.DataError,
    )
    return photos


def _photos_among(entries: Iterable[Path]) -> list[Path]:
    chosen = [
        path
        for path in entries
        if path.suffix.lower() in PHOTO_EXTENSIONS and not path.name.startswith(".")
    ]
    return sorted(chosen, key=natural_key)


def _subfolders_with_photos(folder: Path) -> list[Path]:
    """Folders directly below that hold photos, for the hint where the folder itself has none."""
    below = sorted((path for path in folder.iterdir() if path.is_dir()), key=natural_key)
    readable = [path for path in below if os.access(path, os.R_OK | os.X_OK)]
    return [path for path in readable if _photos_among(path.iterdir())]


def _fail_empty(what: str, entries: Sequence[Path], elsewhere: Sequence[Path]) -> None:
    files = [path for path in entries if path.is_file()]
    kinds = Counter(path.suffix.lower() or "without extension" for path in files)
    got = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "no file"
    if elsewhere:
        got += f" (did you mean '{elsewhere[0]}'?)"
    elif any(is_video(path) for path in files):
        got += " (give a video by its own name)"
    checks.fail(
        what,
        f"hold at least one photo ({' '.join(PHOTO_EXTENSIONS)})",
        got,
        error=checks.DataError,
    )


def _hint(path: Path) -> str:
    """What may be behind a path that does not exist: its first missing part is a link to nothing,
    or is spelled much like something that exists."""
    missing = [part for part in (path, *path.parents) if not part.exists()]
    first = missing[-1] if missing else path
    if first.is_symlink():
        return ", a link to nothing" if first == path else f": '{first}' is a link to nothing"
    if not first.parent.is_dir() or not os.access(first.parent, os.R_OK):
        return ""
    close = checks.nearest(first.name, sorted(entry.name for entry in first.parent.iterdir()))
    return f" (did you mean '{first.parent / close}'?)" if close else ""
