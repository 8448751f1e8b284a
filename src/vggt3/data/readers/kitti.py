"""KITTI depth, the cropped selection of its validation.

``val_selection_cropped/{image,groundtruth_depth}``: files named
``DRIVE_image_FRAME_image_02.png`` and ``DRIVE_groundtruth_depth_FRAME_image_02.png``. Depth: 16
bits, 256 steps a metre, 0 invalid (most pixels: a lidar measured it).
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import read_depth
from vggt3.data.readers.record import Scene, View

STEPS = 256.0
NAME = re.compile(r"(?P<drive>.+)_image_(?P<frame>\d+)_image_(?P<camera>\d\d)")
PLACES = ("", "val_selection_cropped", "depth_selection/val_selection_cropped")


def read(root: Path, split: str) -> list[Scene]:
    """A drive is a scene; of one that two cameras took, the one with more frames."""
    place = next((root / p for p in PLACES if (root / p / "image").is_dir()), None)
    if place is None:
        told = "hold image/*.png beside groundtruth_depth/*.png"
        checks.fail(str(root), told, "no folder image", error=checks.DataError)
    drives: dict[str, dict[str, list[tuple[int, View]]]] = defaultdict(lambda: defaultdict(list))
    for image in sorted((place / "image").glob("*.png")):
        name = NAME.fullmatch(image.stem)
        if name is None:
            continue
        drive, frame, camera = name["drive"], name["frame"], name["camera"]
        depth = place / "groundtruth_depth"
        depth /= f"{drive}_groundtruth_depth_{frame}_image_{camera}.png"
        known = partial(read_depth, depth, STEPS) if depth.is_file() else None
        drives[drive][camera].append((int(frame), View(image.stem, image, depth=known)))
    return [_scene(drive, cameras) for drive, cameras in drives.items()]


def _scene(drive: str, cameras: dict[str, list[tuple[int, View]]]) -> Scene:
    chosen = max(sorted(cameras), key=lambda camera: len(cameras[camera]))
    views = tuple(view for _, view in sorted(cameras[chosen], key=lambda pair: pair[0]))
    note = f"KITTI {drive}: of cameras {', '.join(sorted(cameras))} only {chosen} is used"
    return Scene("kitti", drive, views, "m", (note,) * (len(cameras) > 1))


LAYOUT = Layout(
    "kitti",
    "KITTI depth (val_selection_cropped)",
    "val_selection_cropped/image/*.png, val_selection_cropped/groundtruth_depth/*.png",
    tuple(f"{place}/groundtruth_depth/*.png".lstrip("/") for place in PLACES),
    read,
)
