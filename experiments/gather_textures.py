"""Crops of freely licensed pictures from Debian packages, as textures for training.

    python experiments/gather_textures.py .carry/textures

Downloads the packages with apt-get (no installation, no root), cuts every picture into a few
squares at several scales, leaves out what is nearly flat, and writes JPEGs of 256×256, at most
8 MB in all, with a list of where each came from and each package's copyright file. None of it is
shipped: it goes to the training machine (`--data.textures`).
"""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

PACKAGES = (
    "plasma-workspace-wallpapers",
    "ukui-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "gnome-backgrounds",
    "mate-backgrounds",
    "openarena-081-textures",
)
SIDE, BYTES = 256, 8_000_000
SHARE = {"openarena-081-textures": 0.2}
"""Of the bytes at most, where a package is not photographs."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tga"}
LEAST_SIDE = 256
FLAT = 10.0
"""Mean difference between neighbouring blocks, of 255, below which a crop says nothing."""


def unpack(package: str, place: Path) -> list[Path]:
    """The pictures of a package, one a motif where several sizes come."""
    place.mkdir()
    done = subprocess.run(
        ["apt-get", "download", package], cwd=place, capture_output=True, text=True, check=False
    )
    archives = list(place.glob("*.deb"))
    if done.returncode or not archives:
        print(f"{package}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return []
    subprocess.run(["dpkg", "-x", str(archives[0]), str(place / "x")], check=True)
    for game in (place / "x").rglob("*.pk3"):
        shutil.unpack_archive(game, game.with_suffix(""), "zip")
    best: dict[str, Path] = {}
    for file in sorted((place / "x").rglob("*")):
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.is_symlink():
            sized = file.parent.name.startswith("images")
            motif = str(file.parent) if sized else str(file)
            if motif not in best or file.stat().st_size > best[motif].stat().st_size:
                best[motif] = file
    return list(best.values())


def crops(file: Path, draw: random.Random, most: int) -> list[Image.Image]:
    """Up to ``most`` squares of a picture, from all of it to a few hundred pixels."""
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return []
    short = min(picture.size)
    if short < LEAST_SIDE:
        return []
    found = []
    for _ in range(3 * most):
        side = int(short * (LEAST_SIDE / short) ** draw.random())
        left, top = (draw.randint(0, extent - side) for extent in picture.size)
        crop = picture.crop((left, top, left + side, top + side))
        crop = crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        if detail(crop) > FLAT:
            found.append(crop)
        if len(found) == most or side == short == LEAST_SIDE:
            break
    return found


def detail(crop: Image.Image) -> float:
    """Mean difference between neighbouring blocks of 8×8 pixels."""
    blocks = np.asarray(crop.convert("L").resize((SIDE // 8, SIDE // 8)), dtype=float)
    across, down = np.abs(np.diff(blocks, axis=1)), np.abs(np.diff(blocks, axis=0))
    return float((across.mean() + down.mean()) / 2)


def main(output: Path, most: int = 6) -> None:
    """Write the crops, their origins and the copyrights."""
    output.mkdir(parents=True)
    origins: list[str] = []
    spent = 0
    with tempfile.TemporaryDirectory() as scratch:
        for package in PACKAGES:
            place = Path(scratch) / package
            files = unpack(package, place)
            draw = random.Random(package)
            draw.shuffle(files)
            limit = spent + int(SHARE.get(package, 1.0) * BYTES)
            for file in files:
                for crop in crops(file, draw, most):
                    stored = io.BytesIO()
                    crop.save(stored, "JPEG", quality=85)
                    if spent + len(stored.getvalue()) > min(BYTES, limit):
                        break
                    name = hashlib.sha256(stored.getvalue()).hexdigest()[:16] + ".jpg"
                    (output / name).write_bytes(stored.getvalue())
                    spent += len(stored.getvalue())
                    origins.append(f"{name} {package} {file.relative_to(place / 'x')}")
            for text in (place / "x").glob("usr/share/doc/*/copyright*"):
                shutil.copy(text, output / f"{package}.{text.name}.txt")
            print(f"{package}: {len(files)} pictures; {len(origins)} crops, {spent / 1e6:.1f} MB")
    (output / "origins.txt").write_text("\n".join(origins) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
