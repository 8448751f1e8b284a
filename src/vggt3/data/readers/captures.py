"""Capture folders: photos, ``cameras.json``, depth where it is known; one, or a folder of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from vggt3.data.capture import LISTING, CaptureFrame, read_capture
from vggt3.data.readers.layout import Layout
from vggt3.data.readers.parsing import intrinsics, subfolders
from vggt3.data.readers.record import Scene, View

ESTIMATED = "estimated"
"""``pose_kind`` of what vggt3 reconstructed."""


def read(root: Path, split: str) -> list[Scene]:
    """A capture is a scene, of its posed frames."""
    places = [root] if (root / LISTING).is_file() else subfolders(root)
    return [_scene(place) for place in places if (place / LISTING).is_file()]


def _scene(folder: Path) -> Scene:
    capture = read_capture(folder)
    views = tuple(
        View(
            frame.file.relative_to(folder).as_posix(),
            frame.file,
            partial(_pose, frame),
            partial(_intrinsics, frame),
            None if frame.depth_file is None else partial(_depth, frame),
        )
        for frame in capture.posed
    )
    metric = capture.scale is not None and capture.scale.startswith("metric")
    unposed = len(capture.frames) - len(views)
    notes = []
    if unposed:
        notes.append(f"capture {folder.name}: {unposed} photos without a camera are left out")
    if capture.pose_kind == ESTIMATED:
        notes.append(f"capture {folder.name}: its cameras are estimates, not the truth")
    return Scene("captures", folder.name, views, "m" if metric else "", tuple(notes))


def _pose(frame: CaptureFrame) -> Tensor:
    assert frame.camera_from_world is not None
    return frame.camera_from_world


def _intrinsics(frame: CaptureFrame) -> Tensor:
    assert frame.intrinsics is not None
    return intrinsics(frame.intrinsics, f"{LISTING} of {frame.file}")


def _depth(frame: CaptureFrame) -> Tensor:
    depth = frame.depth()
    assert depth is not None
    return depth


LAYOUT = Layout(
    "captures",
    "captures",
    "cameras.json, images/…, or a folder of such folders",
    (LISTING, f"*/{LISTING}"),
    read,
)
