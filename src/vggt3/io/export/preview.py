"""``preview.png``: photos with their depths, and the cloud from two sides with the cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vggt3.io.export.cloud_panel import draw_cloud, draw_size, frustum_corners
from vggt3.io.export.colours import (
    FAINT_TEXT,
    PAGE,
    TEXT,
    camera_colours,
    depth_colours,
)
from vggt3.io.export.sampled_cloud import Cloud
from vggt3.io.export.viewpoint import Array, fitted, look, scene_frame
from vggt3.types import Cameras, DenseView

MOST_SHOWN = 8
"""Photos in the strip."""

_WIDTH = 1600
_EDGE = 28
_GAP = 12
_TALLEST = 340
_PANEL_HEIGHT = 600
_MOST_POINTS = 1_500_000
_MOST_FRUSTUMS = 120
_SIDES = (("from above", 0.0, 72.0), ("from the side", 38.0, 20.0))


@dataclass(frozen=True)
class StripEntry:
    """What the strip shows of one view."""

    name: str
    image: NDArray[np.uint8]
    """[h, w, 3] RGB, reduced."""
    depth: NDArray[np.float32]
    """[h, w] along z, scene units, reduced."""


def shown_indices(views: int) -> tuple[int, ...]:
    """The views that the strip shows: at most eight, evenly spaced, the first among them."""
    return tuple(sorted({round(x) for x in np.linspace(0, views - 1, min(views, MOST_SHOWN))}))


def strip_entry(
    name: str,
    view: DenseView,
    image: Tensor,  # [3, H, W] uint8
) -> StripEntry:
    """``view`` reduced to what the strip needs, so that the rest of it can be let go."""
    step = max(1, max(view.depth.shape) // 600)
    depth = view.depth.detach().to("cpu", torch.float32)[::step, ::step].numpy().copy()
    pixels = Image.fromarray(image.detach().cpu().permute(1, 2, 0).numpy())
    small = pixels.resize((depth.shape[1], depth.shape[0]), Image.Resampling.BOX)
    return StripEntry(" ".join(name.split()), np.asarray(small), depth)


def write_preview(
    path: Path,
    strip: Sequence[StripEntry],
    cloud: Cloud,
    cameras: Cameras,
) -> None:
    """Draw the preview; ``strip`` holds at least one view, the cloud may be empty."""
    page = _Page()
    _draw_title(page, len(cameras.sizes), len(cloud))
    _draw_strip(page, strip)
    _draw_panels(page, cloud, cameras)
    page.finished().save(path, optimize=True)


class _Page:
    """A picture that grows downwards."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (_WIDTH, 2400), PAGE)
        self.canvas = ImageDraw.Draw(self.image)
        self.y = _EDGE

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int,
        colour: tuple[int, ...] = TEXT,
        anchor: str = "la",
    ) -> None:
        self.canvas.text((x, y), text, colour, ImageFont.load_default(size), anchor=anchor)

    def finished(self) -> Image.Image:
        return self.image.crop((0, 0, _WIDTH, self.y - _GAP + _EDGE))


def _draw_title(page: _Page, views: int, points: int) -> None:
    what = f"{views} view{'s' if views != 1 else ''}   ·   {points:,} points"
    page.text(_EDGE, page.y, what, 24)
    page.y += 44


def _draw_strip(page: _Page, strip: Sequence[StripEntry]) -> None:
    """Photos over their depths, each as wide as its own shape asks, all of one height.

    One or two photos stand beside their depths instead, which fills the page better.
    """
    room = _WIDTH - 2 * _EDGE + _GAP
    aspects = [entry.depth.shape[1] / entry.depth.shape[0] for entry in strip]
    beside = 2 if 2 * sum(aspects) * _TALLEST + 2 * _GAP * len(strip) < room else 1
    height = int((room / beside - _GAP * len(strip)) / sum(aspects))
    height = max(24, min(_TALLEST, height))
    near, far = _depth_range([entry.depth for entry in strip])
    x = _EDGE
    for entry, aspect in zip(strip, aspects, strict=True):
        # A panorama may be wider than its place even at the least height.
        width = max(8, min(int(height * aspect), room - _GAP))
        size = (width, height)
        photo = Image.fromarray(entry.image).resize(size, Image.Resampling.LANCZOS)
        colours = Image.fromarray(depth_colours(_nearness(entry.depth, near, far)))
        across, down = (width + _GAP, 0) if beside == 2 else (0, height + 4)
        page.image.paste(photo, (x, page.y))
        page.image.paste(
            colours.resize(size, Image.Resampling.LANCZOS), (x + across, page.y + down)
        )
        label = _shortened(page, Path(entry.name).name, 15, width)
        page.text(x, page.y + down + height + 8, label, 15, FAINT_TEXT)
        x += across + width + _GAP
    page.y += (height if beside == 2 else 2 * height + 4) + 42
    _draw_camera_key(page)
    _draw_depth_key(page, near, far)
    page.y += 30


def _draw_depth_key(page: _Page, near: float, far: float) -> None:
    """The colours of depth from near to far, with the distances at its ends."""
    if not np.isfinite(near):
        page.text(_EDGE, page.y, "no depth", 15, FAINT_TEXT)
        return
    length, thick = 260, 12
    title = f"depth   {near:.3g}"
    page.text(_EDGE, page.y + 6, title, 15, FAINT_TEXT, "lm")
    left = _EDGE + 12 + int(page.canvas.textlength(title, ImageFont.load_default(15)))
    ramp = depth_colours(np.tile(np.linspace(1, 0, length), (thick, 1)))
    page.image.paste(Image.fromarray(ramp), (left, page.y))
    page.text(left + length + 12, page.y + 6, f"{far:.3g}  scene units", 15, FAINT_TEXT, "lm")


def _draw_panels(page: _Page, cloud: Cloud, cameras: Cameras) -> None:
    """The cloud from above and from the side, with a key to the cameras."""
    poses, intrinsics, sizes = _finite_cameras(cameras)
    step = max(1, -(-len(cloud) // _MOST_POINTS))
    xyz, rgb = cloud.xyz[::step].double().numpy(), cloud.rgb[::step].numpy()
    # Enough to find where the scene is.
    bulk = xyz[:: max(1, len(xyz) // 200_000)]
    frame = scene_frame(bulk, poses)
    length = _frustum_length(frame.radius, len(poses))
    frustums = np.array(
        [
            frustum_corners(pose, matrix, size, length)
            for pose, matrix, size in zip(poses, intrinsics, sizes, strict=True)
        ]
    ).reshape(-1, 5, 3)
    width = (_WIDTH - 2 * _EDGE - _GAP) // 2
    for place, (title, azimuth, elevation) in enumerate(_SIDES):
        x = _EDGE + place * (width + _GAP)
        view = look(frame, draw_size((_PANEL_HEIGHT, width)), azimuth, elevation)
        view = fitted(view, bulk, frustums.reshape(-1, 3))
        page.image.paste(draw_cloud(view, xyz, rgb, frustums), (x, page.y))
        page.text(x + 16, page.y + 12, title, 18)
    page.y += _PANEL_HEIGHT + _GAP


def _draw_camera_key(page: _Page) -> None:
    """The colours of cameras from the first to the last."""
    right, length, thick = _WIDTH - _EDGE, 120, 12
    page.text(right, page.y + 6, "last", 15, FAINT_TEXT, "rm")
    ramp = np.tile(camera_colours(length), (thick, 1, 1))
    page.image.paste(Image.fromarray(ramp), (right - 38 - length, page.y))
    page.text(right - 50 - length, page.y + 6, "cameras   first", 15, FAINT_TEXT, "rm")


def _finite_cameras(cameras: Cameras) -> tuple[Array, Array, list[tuple[int, int]]]:
    """Poses [V, 3, 4], intrinsics [V, 3, 3] and sizes of the cameras that can be drawn."""
    count = len(cameras.sizes)
    poses = cameras.world_from_camera.detach().cpu().double().reshape(count, 3, 4).numpy()
    intrinsics = cameras.intrinsics.detach().cpu().double().reshape(count, 3, 3).numpy()
    finite = np.flatnonzero(np.isfinite(poses).all(axis=(1, 2)))
    if len(finite) > _MOST_FRUSTUMS:
        finite = finite[np.linspace(0, len(finite) - 1, _MOST_FRUSTUMS).astype(int)]
    return poses[finite], intrinsics[finite], [cameras.sizes[i] for i in finite]


def _frustum_length(radius: float, cameras: int) -> float:
    """Scene units: a fixed part of the scene, less where there are many cameras."""
    return radius * 0.16 * min(1.0, (16 / max(cameras, 1)) ** 0.5)


def _depth_range(depths: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Near and far over all views, without the outermost two in a hundred; NaN without depth."""
    values = np.concatenate([depth[_has_depth(depth)] for depth in depths])
    if len(values) == 0:
        return float("nan"), float("nan")
    near, far = np.percentile(values, [2, 98])
    return float(near), float(max(far, near * 1.0001))


def _nearness(depth: NDArray[np.float32], near: float, far: float) -> NDArray[np.float64]:
    """1 at ``near``, 0 at ``far``, even steps of the logarithm between; NaN without depth."""
    logs = np.log(np.where(_has_depth(depth), depth, np.nan).astype(np.float64))
    return np.clip((np.log(far) - logs) / (np.log(far) - np.log(near)), 0, 1)


def _has_depth(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.isfinite(depth) & (depth > 0)


def _shortened(page: _Page, text: str, size: int, width: float) -> str:
    """``text`` cut in its middle so that it is at most ``width`` pixels wide."""
    font = ImageFont.load_default(size)
    keep = len(text)
    short = text
    while keep > 2 and page.canvas.textlength(short, font) > width:
        keep -= 1
        short = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
    return short
