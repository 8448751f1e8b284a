"""Neural RGB-D (Azinović et al.): nine synthetic rooms.

``scene/{images/img0.png,depth/depth0.png,poses.txt}``. Depth: 16 bits, millimetres, 0 invalid.
``poses.txt``: a 4×4 world-from-camera for each image, OpenGL axes, metres. One camera for all.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    KnownCamera,
    by_number,
    matrix,
    numbers,
    pose,
    read_depth,
    subfolders,
)
from vggt3.data.readers.record import Scene, View

FOCAL = 554.2562584220408
CAMERA = KnownCamera((FOCAL, FOCAL), (320.0, 240.0), (480, 640))
"""The centre is the image's, so its origin is the top-left pixel's corner."""


def read(root: Path, split: str) -> list[Scene]:
    """A folder with poses.txt is a scene."""
    places = [root] if (root / "poses.txt").is_file() else subfolders(root)
    return [_scene(place) for place in places if (place / "poses.txt").is_file()]


def _scene(folder: Path) -> Scene:
    images = by_number(list((folder / "images").glob("img*.png")))
    listing = folder / "poses.txt"
    values = numbers(listing)
    last = max((_number(image) for image in images), default=-1)
    checks.require(
        len(values) % 16 == 0 and len(values) > 16 * last,
        str(listing),
        f"hold a 4×4 matrix for each of {last + 1} images",
        f"{len(values)} numbers",
        error=checks.DataError,
    )
    views = []
    for image in images:
        number = _number(image)
        depth = folder / "depth" / f"depth{number}.png"
        mine = tuple(values[16 * number : 16 * number + 16])
        views.append(
            View(
                image.stem,
                image,
                partial(_pose, listing, number, mine),
                partial(CAMERA.at, image),
                partial(read_depth, depth, 1000.0) if depth.is_file() else None,
            )
        )
    return Scene("nrgbd", folder.name, tuple(views))


def _number(image: Path) -> int:
    return int((re.findall(r"\d+", image.stem) or ["0"])[-1])


def _pose(listing: Path, number: int, values: tuple[float, ...]) -> Tensor:
    what = f"{listing}, matrix {number}"
    return pose(matrix(listing, 4, 4, values), what, inverted=True, opengl=True)


LAYOUT = Layout(
    "nrgbd",
    "Neural RGB-D",
    "scene/images/img0.png, scene/depth/depth0.png, scene/poses.txt",
    ("*/images/img[0-9]*.png", "images/img[0-9]*.png"),
    read,
)
