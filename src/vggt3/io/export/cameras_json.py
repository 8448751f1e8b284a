"""``cameras.json``: one entry a photo, with intrinsics at its original size, and its pose."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.types import Cameras

POSE_KINDS = ("estimated", "ground_truth", "reference", "none")

_INTRINSICS = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One photo of a ``cameras.json``."""

    file: str
    """Path of the photo below the folder of the ``cameras.json``, or the photo's name."""
    size: tuple[int, int]
    """(height, width) in pixels."""
    intrinsics: Tensor | None
    """[3, 3] float64, pixels at ``size``, origin at the top-left corner; None without a pose."""
    world_from_camera: Tensor | None
    """[4, 4] float64, OpenCV axes; None without a pose."""
    depth: str | None = None
    """Path of a depth map below the same folder."""


@dataclass(frozen=True, eq=False)
class CameraFile:
    """What a ``cameras.json`` says."""

    name: str
    pose_kind: str
    """``estimated`` (ours), ``ground_truth``, ``reference`` or ``none``."""
    scale: str | None
    """Starts with ``metric`` where lengths are metres; otherwise ``arbitrary`` or None."""
    frames: tuple[CameraFrame, ...]

    @property
    def posed(self) -> tuple[CameraFrame, ...]:
        """The frames that have a pose."""
        return tuple(frame for frame in self.frames if frame.world_from_camera is not None)

    @property
    def metric(self) -> bool:
        """Whether lengths are metres."""
        return self.scale is not None and self.scale.startswith("metric")

    def frame(self, name: str) -> CameraFrame:
        """The frame whose file is ``name``, or whose last path part alone is that of ``name``."""
        exact = [frame for frame in self.frames if frame.file == name]
        last = [frame for frame in self.frames if Path(frame.file).name == Path(name).name]
        found = exact or last
        if not found:
            checks.choose("photo", name, [frame.file for frame in self.frames])
        count = len(found)
        checks.require(count == 1, "photo", "be named once in cameras.json", f"'{name}' {count}×")
        return found[0]

    def cameras(self) -> Cameras:
        """The cameras of ``posed``, in their order, float64; at least one must have a pose."""
        found = [
            (frame.world_from_camera, frame.intrinsics, frame.size)
            for frame in self.frames
            if frame.world_from_camera is not None and frame.intrinsics is not None
        ]
        if not found:
            checks.fail("cameras", "hold at least one pose", "none", error=checks.DataError)
        poses, intrinsics, sizes = zip(*found, strict=True)
        inverse = torch.linalg.inv(torch.stack(poses))
        return Cameras(inverse[:, :3], torch.stack(intrinsics), tuple(sizes))


def write_cameras_json(
    path: Path,
    cameras: Cameras,
    names: Sequence[str],
    *,
    name: str,
    pose_kind: str = "estimated",
    scale: str | None = "arbitrary",
    further: Sequence[Mapping[str, object]] = (),
) -> int:
    """Write ``cameras`` (V of them, at the photos' original sizes) under the photos' ``names``.

    ``further`` has more keys and plain values for each view's entry.

    Returns how many views were written without a pose: those whose camera is not finite (an
    untrained model may answer a field of view of zero).
    """
    checks.choose("pose_kind", pose_kind, POSE_KINDS)
    count = len(cameras.sizes)
    checks.require(len(names) == count, "names", f"name {count} cameras", len(names))
    poses = _stacked(cameras.world_from_camera, (count, 3, 4))
    intrinsics = _stacked(cameras.intrinsics, (count, 3, 3))
    frames = [
        _frame_entry(file, size, intrinsics[i], poses[i])
        for i, (file, size) in enumerate(zip(names, cameras.sizes, strict=True))
    ]
    for entry, more in zip(frames, further, strict=False):
        entry.update(more)
    content = {"name": name, "pose_kind": pose_kind, "scale": scale, "frames": frames}
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return sum("fx" not in frame for frame in frames)


def load_cameras_json(path: str | Path) -> CameraFile:
    """Read a ``cameras.json``; DataError naming the frame and the key that is wrong."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        _fail(path, "be a readable file", error.strerror)
    except ValueError as error:
        _fail(path, "be JSON", error)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        _fail(path, "be an object with a list 'frames'", type(content).__name__)
    pose_kind = content.get("pose_kind", "reference")
    if pose_kind not in POSE_KINDS:
        _fail(path, f"have a 'pose_kind' of {', '.join(POSE_KINDS)}", repr(pose_kind))
    scale = content.get("scale")
    frames = tuple(_parse(path, i, entry) for i, entry in enumerate(content["frames"]))
    return CameraFile(
        name=str(content.get("name", Path(path).parent.name)),
        pose_kind=pose_kind,
        scale=None if scale is None else str(scale),
        frames=frames,
    )


def _stacked(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``values`` of one scene as float64 [V, ...] on the CPU."""
    wanted = values.detach().to("cpu", torch.float64)
    checks.require(
        wanted.numel() == math.prod(shape),
        "cameras",
        f"be of one scene, shape {list(shape)}",
        list(values.shape),
    )
    return wanted.reshape(shape)


def _frame_entry(
    file: str,
    size: tuple[int, int],
    intrinsics: Tensor,  # [3, 3]
    pose: Tensor,  # [3, 4] world from camera
) -> dict[str, object]:
    height, width = size
    entry: dict[str, object] = {"file": file, "width": width, "height": height}
    # A field of view above π, which a model may say, is no pinhole's.
    seen = bool((intrinsics.diagonal()[:2] > 0).all())
    if seen and intrinsics.isfinite().all() and pose.isfinite().all():
        places = ((0, 0), (1, 1), (0, 2), (1, 2))
        for key, place in zip(_INTRINSICS, places, strict=True):
            entry[key] = float(intrinsics[place])
        entry["camera_to_world"] = [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]
    return entry


def _parse(path: str | Path, number: int, entry: object) -> CameraFrame:
    if not isinstance(entry, dict):
        _fail(path, f"have an object as frame {number}", type(entry).__name__)
    where = f"frame {number} ('{entry.get('file')}')"
    for key, kind in (("file", str), ("width", int), ("height", int)):
        if type(entry.get(key)) is not kind:  # JSON's true is an int to isinstance.
            _fail(path, f"have '{key}' in {where}", repr(entry.get(key)))
    size = (entry["height"], entry["width"])
    if min(size) < 1:
        _fail(path, f"have a positive size in {where}", f"{size[0]}×{size[1]}")
    depth = entry.get("depth")
    intrinsics = pose = None
    if entry.get("fx") is not None:
        intrinsics = _parse_intrinsics(path, where, entry)
        pose = _parse_pose(path, where, entry)
    return CameraFrame(entry["file"], size, intrinsics, pose, depth)


def _parse_intrinsics(path: str | Path, where: str, entry: Mapping[str, Any]) -> Tensor:
    values = [entry.get(key) for key in _INTRINSICS]
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(numbers) < 4 or numbers[0] <= 0 or numbers[1] <= 0:
        _fail(path, f"have finite fx, fy above 0 and cx, cy in {where}", values)
    fx, fy, cx, cy = numbers
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _parse_pose(path: str | Path, where: str, entry: Mapping[str, Any]) -> Tensor:
    wanted = f"have a 4×4 rotation and translation as 'camera_to_world' in {where}"
    try:
        pose = torch.tensor(entry.get("camera_to_world"), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        _fail(path, wanted, repr(entry.get("camera_to_world"))[:80])
    if pose.shape != (4, 4) or not pose.isfinite().all():
        _fail(path, wanted, f"shape {list(pose.shape)} or a number that is not finite")
    rotation = pose[:3, :3]
    error = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max()
    if error > 1e-2:
        _fail(path, wanted, f"a matrix {float(error):.3g} away from a rotation")
    if torch.det(rotation) < 0:
        _fail(path, wanted, "a reflection (its determinant is -1)")
    return pose


def _fail(path: str | Path, wanted: str, got: object) -> NoReturn:
    checks.fail(f"'{path}'", wanted, got, error=checks.DataError)
