"""What a folder looks like, for the error where another kind was wanted."""

from __future__ import annotations

import json
from pathlib import Path

from vggt3.io.sources import PHOTO_EXTENSIONS, is_video

_COLMAP_PLACES = (".", "sparse", "sparse/0", "colmap/sparse/0")


def looks_like(place: Path) -> str:
    """``place``, which exists, in a few words; it is only looked at from outside."""
    if not place.is_dir():
        return "a video" if is_video(place) else f"a file ({place.name})"
    for known in (_by_listing(place), _colmap(place), _photos(place)):
        if known:
            return known
    entries = sorted(entry.name for entry in place.iterdir())
    if not entries:
        return "an empty folder"
    inner = [name for name in entries if (place / name / "scene.npz").is_file()]
    if inner:
        return f"a folder with a scene in it (did you mean '{place / inner[0]}'?)"
    return f"a folder of another kind, with '{entries[0]}'"


def _by_listing(place: Path) -> str | None:
    if (place / "transforms.json").is_file():
        return "a nerfstudio data set (transforms.json)"
    listing, maps = place / "cameras.json", place / "scene.npz"
    if maps.is_file():
        return "a scene" if listing.is_file() else "a scene without its cameras.json"
    if not listing.is_file():
        return None
    try:
        content = json.loads(listing.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return "a folder with a cameras.json that cannot be read"
    kind = content.get("pose_kind", "reference") if isinstance(content, dict) else "unknown"
    if kind == "estimated":
        return "a scene without its scene.npz"
    return f"a capture (cameras.json with poses of kind '{kind}' and no scene.npz)"


def _colmap(place: Path) -> str | None:
    for below in _COLMAP_PLACES:
        for ending in ("bin", "txt"):
            names = (f"cameras.{ending}", f"images.{ending}")
            if all((place / below / name).is_file() for name in names):
                where = Path(below) / names[0]
                return f"a COLMAP model ({where.as_posix()})"
    return None


def _photos(place: Path) -> str | None:
    for folder, where in ((place, ""), (place / "images", " in 'images'")):
        if folder.is_dir():
            found = [e for e in folder.iterdir() if e.suffix.lower() in PHOTO_EXTENSIONS]
            # A scene's own preview is a picture too.
            if [e for e in found if e.name != "preview.png"]:
                return f"a folder of photos{where} (vggt3 reconstruct makes a scene of them)"
    return None
