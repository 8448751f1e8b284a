"""Known cameras of some photos, in the formats people have them in: poses, no intrinsics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.io.export.cameras_json import load_cameras_json
from vggt3.io.sources import existing
from vggt3.signals import import_pycolmap

COLMAP = ("images.bin", "images.txt")
FORMATS = "a cameras.json, a COLMAP model's folder or a transforms.json"


@dataclass(frozen=True)
class ReferenceCameras:
    """Where photos were taken from, in the user's frame and unit."""

    path: Path
    names: tuple[str, ...]
    """Of the photos, as the file has them."""
    world_from_camera: Tensor
    """[N, 3, 4] float64, OpenCV axes."""
    metric: bool = False
    """Whether the file says that lengths are metres."""

    @property
    def centres(self) -> Tensor:
        """[N, 3] camera centres."""
        return self.world_from_camera[..., 3]

    def matched(self, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Places in ``names`` and in this file of the photos that both have.

        A photo is found by its whole name, or by the last part of it where that is unique in
        both lists.
        """
        pairs, _ = _pairs(names, self.names)
        return [a for a, _ in pairs], [b for _, b in pairs]

    def ambiguous(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that this file may mean, but that could be several photos, here or
        there: they are not matched."""
        return _pairs(names, self.names)[1]


def read_reference(path: str | Path) -> ReferenceCameras:
    """Cameras from a cameras.json, a COLMAP model or a nerfstudio transforms.json.

    A folder may hold any one of these; a COLMAP model may lie in its ``sparse/0``.

    Raises:
        DataError: none of these, or a file that cannot be read.
    """
    place = existing(path, "--reference")
    if place.is_dir():
        place = _within(place)
    if place.is_dir():
        return _colmap(place)
    if place.suffix.lower() != ".json":
        _refuse(path, f"be {FORMATS}", "another file")
    content = _json(place)
    if isinstance(content, dict) and "transform_matrix" in str(_first_frame(content)):
        return _transforms(place, content)
    return _cameras_json(place)


def _within(folder: Path) -> Path:
    """The file or the model's folder that ``folder`` holds."""
    for inside in (folder, folder / "sparse" / "0", folder / "sparse"):
        if any((inside / name).is_file() for name in COLMAP):
            return inside
    for name in ("cameras.json", "transforms.json"):
        if (folder / name).is_file():
            return folder / name
    held = sorted(entry.name for entry in folder.iterdir())[:4]
    _refuse(folder, f"hold {FORMATS}", ", ".join(held) or "nothing")


def _cameras_json(path: Path) -> ReferenceCameras:
    file = load_cameras_json(path)
    posed = [(f.file, f.world_from_camera) for f in file.posed if f.world_from_camera is not None]
    if not posed:
        _refuse(path, "have a posed frame", "none")
    poses = torch.stack([pose[:3] for _, pose in posed])
    return ReferenceCameras(path, tuple(name for name, _ in posed), poses, file.metric)


def _transforms(path: Path, content: dict[str, Any]) -> ReferenceCameras:
    """nerfstudio: world-from-camera 4×4, its camera axes OpenGL's (y up, z backward)."""
    names, poses = [], []
    for number, frame in enumerate(content["frames"]):
        try:
            matrix = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
            name = str(frame["file_path"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            _refuse(
                path, f"have file_path and transform_matrix in frame {number}", checks.reason(error)
            )
        if matrix.shape not in ((4, 4), (3, 4)) or not bool(matrix.isfinite().all()):
            _refuse(path, f"have a finite 4×4 matrix in frame {number}", list(matrix.shape))
        names.append(name.removeprefix("./"))
        poses.append(matrix[:3] * torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    return ReferenceCameras(path, tuple(names), torch.stack(poses))


def _colmap(folder: Path) -> ReferenceCameras:
    try:
        pycolmap = import_pycolmap()
    except ModuleNotFoundError:
        told = "be read by pycolmap (pip install 'vggt3[colmap]')"
        _refuse(folder, told, "a machine without that package")
    try:
        model = pycolmap.Reconstruction(str(folder))
        images = [image for image in model.images.values() if image.has_pose]
        found = [(i.name, i.cam_from_world().inverse().matrix().tolist()) for i in images]
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        _refuse(folder, "be a whole COLMAP model", str(error).partition("\n")[0])
    if not found:
        _refuse(folder, "have a posed image", "none")
    found.sort()
    poses = torch.tensor([pose for _, pose in found], dtype=torch.float64)
    return ReferenceCameras(folder, tuple(name for name, _ in found), poses)


def _first_frame(content: dict[str, Any]) -> Any:
    frames = content.get("frames")
    return list(frames[0]) if isinstance(frames, list) and frames and frames[0] else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        _refuse(path, "be a readable file", error.strerror)
    except ValueError as error:
        _refuse(path, "be JSON", error)


def _pairs(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[tuple[int, int]], list[str]]:
    """Places of the photos that both have, and the names of ours that could be several."""
    whole = {name: n for n, name in enumerate(theirs)}
    last = {Path(name).name: n for n, name in enumerate(theirs)}
    there, here = Counter(theirs), Counter(ours)
    ends_there = Counter(Path(name).name for name in theirs)
    ends_here = Counter(Path(name).name for name in ours)
    pairs, unclear = [], []
    for n, name in enumerate(ours):
        part = Path(name).name
        if name in whole:
            alone, place = there[name] == 1 and here[name] == 1, whole[name]
        elif part in last:
            alone, place = ends_there[part] == 1 and ends_here[part] == 1, last[part]
        else:
            continue
        if alone:
            pairs.append((n, place))
        else:
            unclear.append(name)
    return pairs, unclear


def _refuse(path: str | Path, wanted: str, got: object) -> NoReturn:
    checks.fail(f"reference '{path}'", wanted, got, error=checks.DataError)
