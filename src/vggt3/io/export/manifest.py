"""``vggt3.json``: what an exported folder was made from, and every file that is ours in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from vggt3 import __version__

MANIFEST = "vggt3.json"


def write_manifest(folder: Path, target: str, facts: Mapping[str, object]) -> None:
    """Write it last, once everything else is in ``folder``."""
    content = {
        "written_by": f"vggt3 {__version__}",
        "target": target,
        **facts,
        "files": sorted([*_files(folder), MANIFEST]),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def not_exported(folder: Path) -> str | None:
    """Why the folder is no untouched export of ours, or None: for ``staged``."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        ours = set(content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"a folder that vggt3 export did not write (no {MANIFEST})"
    strange = sorted(set(_files(folder)) - ours)
    return f"a folder with '{strange[0]}', which vggt3 did not write" if strange else None


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files and links below ``folder``; links are not followed."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()
