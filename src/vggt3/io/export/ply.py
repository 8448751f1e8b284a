"""``points.ply``: coloured points, binary little endian."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from vggt3 import checks

_VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)

_TYPES = {
    "char": "<i1",
    "int8": "<i1",
    "uchar": "<u1",
    "uint8": "<u1",
    "short": "<i2",
    "int16": "<i2",
    "ushort": "<u2",
    "uint16": "<u2",
    "int": "<i4",
    "int32": "<i4",
    "uint": "<u4",
    "uint32": "<u4",
    "float": "<f4",
    "float32": "<f4",
    "double": "<f8",
    "float64": "<f8",
}

_LONGEST_HEADER = 65_536

_ROWS_AT_ONCE = 1_000_000


def write_cloud(
    path: Path,
    xyz: Tensor,  # [N, 3] world frame, scene units
    rgb: Tensor,  # [N, 3] uint8
) -> None:
    """Write N coloured points (N may be 0)."""
    count = checks.shape_of("xyz", tuple(xyz.shape), "N 3")["N"]
    checks.require(tuple(rgb.shape) == (count, 3), "rgb", f"be [{count}, 3]", list(rgb.shape))
    checks.require(rgb.dtype == torch.uint8, "rgb", "be uint8", rgb.dtype)
    properties = "".join(
        f"property {'uchar' if _VERTEX[name] == np.uint8 else 'float'} {name}\n"
        for name in _VERTEX.names or ()
    )
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment written by vggt3\n"
        f"element vertex {count}\n{properties}end_header\n"
    )
    with path.open("wb") as file:
        file.write(header.encode("ascii"))
        for start in range(0, count, _ROWS_AT_ONCE):
            places = xyz[start : start + _ROWS_AT_ONCE].detach().cpu().float().numpy()
            colours = rgb[start : start + _ROWS_AT_ONCE].detach().cpu().numpy()
            rows = np.empty(len(places), _VERTEX)
            for axis, name in enumerate(("x", "y", "z")):
                rows[name] = places[:, axis]
            for channel, name in enumerate(("red", "green", "blue")):
                rows[name] = colours[:, channel]
            file.write(rows.tobytes())


def read_cloud(path: str | Path) -> tuple[Tensor, Tensor]:
    """Points [N, 3] float32 and colours [N, 3] uint8 of a binary little-endian PLY.

    Other vertex properties and later elements are passed over; points without colour are white.
    Raises DataError for anything else.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        _fail(path, error.strerror)
    end = data.find(b"end_header", 0, _LONGEST_HEADER)
    start = data.find(b"\n", end) + 1
    if not data.startswith(b"ply") or end < 0 or start == 0:
        _fail(path, "a file without its header")
    count, vertex = _vertex_layout(path, data[:end].decode("ascii", errors="replace"))
    if len(data) - start < count * vertex.itemsize:
        _fail(path, f"a file cut off: {len(data) - start} bytes for {count} points")
    rows = np.frombuffer(data, vertex, count, start)
    xyz = np.stack([rows[axis].astype(np.float32) for axis in ("x", "y", "z")], axis=-1)
    rgb = np.full((count, 3), 255, np.uint8)
    names = vertex.names or ()
    if {"red", "green", "blue"} <= set(names):
        rgb = np.stack([rows[c].astype(np.uint8) for c in ("red", "green", "blue")], axis=-1)
    return torch.from_numpy(xyz), torch.from_numpy(rgb)


def _vertex_layout(path: str | Path, header: str) -> tuple[int, np.dtype[np.void]]:
    """The number of points and the layout of one, from the header's lines."""
    count = -1
    element = ""
    fields: list[tuple[str, str]] = []
    for line in header.splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"] and words[1:2] != ["binary_little_endian"]:
            _fail(path, f"format {' '.join(words[1:])}")
        elif words[:1] == ["element"] and len(words) == 3:
            if element == "" and words[1] != "vertex":
                _fail(path, f"'{words[1]}' before the points")
            element = words[1]
            if element == "vertex" and words[2].isdecimal():
                count = int(words[2])
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES:
                _fail(path, f"'{line}'")
            fields.append((words[2], _TYPES[words[1]]))
    if count < 0 or not {"x", "y", "z"} <= {name for name, _ in fields}:
        _fail(path, "no points with x, y and z")
    if len({name for name, _ in fields}) < len(fields):
        _fail(path, "a property named twice")
    return count, np.dtype(fields)


def _fail(path: str | Path, got: object) -> NoReturn:
    checks.fail(f"'{path}'", "be a binary little-endian PLY of points", got, error=checks.DataError)
