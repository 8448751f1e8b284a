"""CO3Dv2 (Meta): turntable videos of objects, by category.

``CATEGORY/frame_annotations.jgz`` is gzipped JSON: for each frame the image, depth (float16 in the
bits of a 16-bit PNG, times ``scale_adjustment``), its mask, and a viewpoint in PyTorch3D's axes (x
left, y up, row vectors: x_camera = x_world R + T) and NDC.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import (
    pinhole_matrix,
    pose,
    positive,
    read_16_bits,
    read_mask,
    subfolders,
)
from vggt3.data.readers.record import Scene, View

LISTING = "frame_annotations.jgz"
FORMATS = ("ndc_isotropic", "ndc_norm_image_bounds")
WRONG = (
    *(OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError),
    *(AttributeError, ArithmeticError),
)
"""What a listing of other things raises."""
TURNED = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
"""x left, y up ↔ x right, y down."""


def read(root: Path, split: str) -> list[Scene]:
    """A sequence is a scene, ``apple/110_13051_23361``."""
    places = [root] if (root / LISTING).is_file() else subfolders(root)
    found = []
    for place in places:
        if (place / LISTING).is_file():
            found += _sequences(place)
    return found


def _sequences(place: Path) -> list[Scene]:
    listing = place / LISTING
    try:
        entries = json.loads(gzip.decompress(listing.read_bytes()))
        frames: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in entries:
            frames[str(entry["sequence_name"])].append(entry)
        return [
            Scene("co3d", f"{place.name}/{name}",
                  tuple(_view(place.parent, entry, listing) for entry in
                        sorted(frames[name], key=lambda e: int(e["frame_number"]))), "")
            for name in sorted(frames)
        ]  # fmt: skip
    except checks.InputError:
        raise
    except WRONG as error:
        told = "be frame annotations of CO3Dv2 (gzipped JSON)"
        checks.fail(str(listing), told, checks.reason(error), error=checks.DataError)


def _view(root: Path, entry: Mapping[str, Any], listing: Path) -> View:
    sight, image = entry["viewpoint"], entry["image"]
    number = int(entry["frame_number"])
    what = f"frame {number} of {entry['sequence_name']} in {listing}"
    turn = torch.tensor(sight["R"], dtype=torch.float64)
    shift = torch.tensor(sight["T"], dtype=torch.float64)
    fits, got = turn.shape == (3, 3) and shift.shape == (3,), [list(turn.shape), list(shift.shape)]
    checks.require(fits, what, "have R of 3×3 and T of 3", got, error=checks.DataError)
    transform = TURNED @ torch.cat([turn.T, shift[:, None]], dim=1)
    kind = str(sight.get("intrinsics_format", FORMATS[1]))
    told = f"have intrinsics in {' or '.join(FORMATS)}"
    checks.require(kind in FORMATS, what, told, kind, error=checks.DataError)
    height, width = (int(side) for side in image["size"])
    half = (width / 2, height / 2)
    unit = (min(half), min(half)) if kind == FORMATS[0] else half
    (fx, fy), (px, py) = sight["focal_length"], sight["principal_point"]
    focal = (float(fx) * unit[0], float(fy) * unit[1])
    centre = (half[0] - float(px) * unit[0], half[1] - float(py) * unit[1])
    depth = entry.get("depth") or {}
    file, mask = depth.get("path"), depth.get("mask_path")
    scale = depth.get("scale_adjustment")
    return View(
        f"frame{number:06d}",
        root / str(image["path"]),
        partial(pose, transform, what),
        partial(pinhole_matrix, focal, centre, what),
        partial(_depth, root / str(file), 1 if scale is None else scale, what) if file else None,
        partial(read_mask, root / str(mask)) if mask else None,
    )


def _depth(path: Path, scale: object, what: str) -> Tensor:
    factor = positive(scale, f"scale_adjustment of {what}")
    bits = read_16_bits(path, "float16").astype(np.uint16)
    return torch.from_numpy(bits.view(np.float16).astype(np.float32) * np.float32(factor))


LAYOUT = Layout(
    "co3d",
    "CO3Dv2",
    "CATEGORY/frame_annotations.jgz, CATEGORY/SEQUENCE/images/frame000001.jpg, …",
    (f"*/{LISTING}", LISTING),
    read,
)
