"""Capture folders: photos, cameras.json, and depth where it is known.

``cameras.json`` has ``name``, ``pose_kind``, ``scale`` and ``frames`` of ``file``, ``width``,
``height``, and where posed ``fx fy cx cy`` (pixels, origin at the corner of the top-left pixel)
and ``camera_to_world`` (4×4, OpenCV axes), optionally ``depth`` (16-bit PNG, millimetres, 0 is
unknown). A frame without ``fx`` has no pose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggt3 import checks
from vggt3.data.procedural.scene import SceneBatch
from vggt3.data.readers.parsing import pose, read_depth, read_rgb
from vggt3.geometry.camera import invert_pose
from vggt3.types import Cameras

CONVENTION = {
    "camera_to_world": "4x4 row-major, OpenCV camera axes (x right, y down, z forward)",
    "pixels": "origin at the corner of the top-left pixel, so its centre is (0.5, 0.5)",
    "distortion": "none: images are pinhole",
}
LISTING = "cameras.json"
RENDERED = "ground truth: procedural scene; the world is the first photo's camera"
"""The ``pose_source`` of what :func:`write_capture` writes."""
MILLIMETRES = 1000.0
FARTHEST_MM = 65534
"""16 bits hold 65.5 m; some cameras write 65535 where they know nothing."""


@dataclass(frozen=True)
class CaptureFrame:
    """One photo of a capture folder."""

    file: Path
    """The photo, as a path that can be opened."""
    size: tuple[int, int]
    """(height, width) in pixels, as stored."""
    intrinsics: Tensor | None
    """[3, 3] pixels at ``size``, origin at the corner of the top-left pixel."""
    camera_from_world: Tensor | None
    """[3, 4] float64, OpenCV axes; units as the capture's ``scale`` says."""
    depth_file: Path | None

    def image(self) -> Tensor:
        """The photo, [3, H, W] uint8 RGB."""
        return read_rgb(self.file)

    def depth(self) -> Tensor | None:
        """[H, W] float32 along z in metres, 0 where unknown; None if there is no depth."""
        if self.depth_file is None:
            return None
        return read_depth(self.depth_file, MILLIMETRES, farthest=FARTHEST_MM / MILLIMETRES)


@dataclass(frozen=True)
class Capture:
    """A capture folder, photos not yet opened."""

    name: str
    pose_kind: str
    """"ground_truth", "reference", "estimated" or "none"."""
    scale: str | None
    """"metric …" or "arbitrary"; None if nothing is known."""
    frames: tuple[CaptureFrame, ...]

    @property
    def posed(self) -> tuple[CaptureFrame, ...]:
        """The frames whose camera is known."""
        return tuple(f for f in self.frames if f.camera_from_world is not None)

    def cameras(self) -> Cameras:
        """Cameras of the posed frames, in their order, in the capture's own world."""
        posed = self.posed
        checks.require(
            len(posed) > 0,
            f"capture {self.name}",
            "have posed frames",
            "none",
            error=checks.DataError,
        )
        poses = [f.camera_from_world for f in posed if f.camera_from_world is not None]
        intrinsics = [f.intrinsics for f in posed if f.intrinsics is not None]
        return Cameras(torch.stack(poses), torch.stack(intrinsics), tuple(f.size for f in posed))


def read_capture(folder: Path | str) -> Capture:
    """The capture in ``folder``; :class:`~vggt3.checks.DataError` says what is wrong with it."""
    folder = Path(folder)
    listing = folder / LISTING
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        checks.fail(
            str(listing), "be a readable JSON file", checks.reason(error), error=checks.DataError
        )
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        checks.fail(str(listing), "list frames", "none", error=checks.DataError)
    return Capture(
        name=str(content.get("name", folder.name)),
        pose_kind=str(content.get("pose_kind", "none")),
        scale=None if content.get("scale") is None else str(content["scale"]),
        frames=tuple(_frame(folder, n, entry) for n, entry in enumerate(frames)),
    )


def _frame(folder: Path, number: int, entry: Mapping[str, Any]) -> CaptureFrame:
    what = f"frame {number} of {folder / LISTING}"
    try:
        file = _within(folder, str(entry["file"]), what)
        size = (int(entry["height"]), int(entry["width"]))
        depth = entry.get("depth")
        depth_file = None if depth is None else _within(folder, str(depth), what)
        if entry.get("fx") is None:
            return CaptureFrame(file, size, None, None, depth_file)
        fx, fy, cx, cy = (float(entry[key]) for key in ("fx", "fy", "cx", "cy"))
        world_from_camera = torch.tensor(entry["camera_to_world"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        checks.fail(what, "have file, width, height and a whole camera", checks.reason(error),
                    error=checks.DataError)  # fmt: skip
    checks.require(
        tuple(world_from_camera.shape) == (4, 4) and bool(world_from_camera.isfinite().all()),
        f"camera_to_world of {what}",
        "be a finite 4×4 matrix",
        entry["camera_to_world"],
        error=checks.DataError,
    )
    intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
    found = pose(world_from_camera, f"camera_to_world of {what}", inverted=True)
    return CaptureFrame(file, size, intrinsics, found, depth_file)


def _within(folder: Path, name: str, what: str) -> Path:
    """A file of the folder; a listing that points outside of it is not followed."""
    path = folder / name
    checks.require(
        path.resolve().is_relative_to(folder.resolve()),
        f"file of {what}",
        "lie in the capture's folder",
        name,
        error=checks.DataError,
    )
    return path


def write_capture(
    folder: Path | str,
    batch: SceneBatch,
    scene: int = 0,
    *,
    name: str | None = None,
    image_format: Literal["jpg", "png"] = "jpg",
) -> Path:
    """Write one rendered scene with its ground truth into an empty or new folder.

    Depth beyond 65.5 m, which 16 bits cannot hold in millimetres, is written as unknown. What is
    to appear whole or not at all is written into :func:`vggt3.io.staging.staged`'s folder.
    """
    folder = Path(folder)
    held = folder.exists() and any(folder.iterdir())
    checks.require(not held, str(folder), "be an empty or a new folder", "one with files")
    for part in ("images", "depth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    frames = [
        _write_frame(folder, batch, scene, view, image_format)
        for view in range(batch.images.shape[1])
    ]
    content = {
        "name": folder.name if name is None else name,
        "convention": CONVENTION,
        "pose_source": RENDERED,
        "pose_kind": "ground_truth",
        "scale": "metric (metres)",
        "depth_gt": "depth/*.png: 16-bit, millimetres, 0 = nothing there (sky)",
        "frames": frames,
    }
    (folder / LISTING).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def not_rendered(folder: Path) -> str | None:
    """Why a folder is no capture that :func:`write_capture` made, nor one of such; None if so."""
    if not (folder / LISTING).is_file():
        inner = sorted(folder.iterdir())
        if inner and all(entry.is_dir() and (entry / LISTING).is_file() for entry in inner):
            return next(filter(None, map(not_rendered, inner)), None)
        return f"'{folder.name}' with other things"
    strange = {entry.name for entry in folder.iterdir()} - {LISTING, "images", "depth"}
    if strange:
        return f"'{folder.name}' with '{min(strange)}', which vggt3 did not write"
    try:
        content = json.loads((folder / LISTING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    ours = isinstance(content, dict) and content.get("pose_source") == RENDERED
    return None if ours else f"'{folder.name}', a capture that vggt3 did not render"


def _write_frame(
    folder: Path, batch: SceneBatch, scene: int, view: int, image_format: str
) -> dict[str, object]:
    image = batch.images[scene, view].float().cpu().clamp(0, 1)
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = f"images/{view:04d}.{image_format}"
    Image.fromarray(pixels).save(folder / file, quality=95)
    depth = (batch.depth[scene, view].float().cpu() * MILLIMETRES).round()
    depth = torch.where(batch.valid[scene, view].cpu() & (depth <= FARTHEST_MM), depth, 0.0)
    depth_file = f"depth/{view:04d}.png"
    Image.fromarray(depth.numpy().astype(np.uint16)).save(folder / depth_file)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3] = invert_pose(batch.camera_from_world[scene, view].double().cpu())
    k = batch.intrinsics[scene, view].double().cpu()
    return {
        "file": file,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "fx": float(k[0, 0]),
        "fy": float(k[1, 1]),
        "cx": float(k[0, 2]),
        "cy": float(k[1, 2]),
        "camera_to_world": pose.tolist(),
        "depth": depth_file,
    }
