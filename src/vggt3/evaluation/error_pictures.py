"""A scene's clouds in one picture: the truth beside the prediction, coloured by its error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from vggt3.evaluation.scoring import AlignedCloud
from vggt3.files import replacing
from vggt3.io.export.cloud_panel import draw_cloud, draw_size
from vggt3.io.export.colours import PAGE, TEXT, depth_colours
from vggt3.io.export.viewpoint import fitted, look, scene_frame
from vggt3.metrics.neighbours import Neighbours

HEIGHT, WIDTH, MARGIN, TITLE = 420, 560, 12, 30
MOST_POINTS = 300_000
NO_FRUSTUMS = np.zeros((0, 5, 3))


def draw_errors(
    path: Path,
    title: str,
    cloud: AlignedCloud,
    truth: Tensor,  # [N, 3] world = first camera
    limit: float,
) -> None:
    """Write a PNG: the truth in grey; the prediction, yellow where exact, dark at ``limit``.

    ``limit`` is in the truth's unit. Both are seen from behind the first camera, raised.
    """
    true = _thinned(truth.cpu().double()).numpy()
    moved = _thinned(cloud.points.cpu().double())
    far = Neighbours(truth.cpu().double()).nearest(moved)[0][:, 0].numpy()
    frame = scene_frame(true, np.eye(4)[None, :3])
    view = fitted(look(frame, draw_size((HEIGHT, WIDTH)), 25, 30), true, np.zeros((1, 3)))
    grey = np.full((len(true), 3), 170, np.uint8)
    hot = depth_colours(1 - np.clip(far / limit, 0, 1))
    page = Image.new("RGB", (2 * WIDTH + 3 * MARGIN, HEIGHT + 2 * MARGIN + TITLE), PAGE)
    for place, (xyz, rgb) in enumerate(((true, grey), (moved.numpy(), hot))):
        x = MARGIN + place * (WIDTH + MARGIN)
        page.paste(draw_cloud(view, xyz, _bytes(rgb), NO_FRUSTUMS), (x, MARGIN + TITLE))
    told = f"{title}: truth | prediction, error 0 (yellow) to {limit:g} (dark)"
    ImageDraw.Draw(page).text((MARGIN, MARGIN + 4), told, fill=TEXT, font_size=16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        page.save(beside, "PNG")


def _bytes(colours: NDArray[np.generic]) -> NDArray[np.uint8]:
    return colours.astype(np.uint8)


def _thinned(points: Tensor) -> Tensor:
    """At most MOST_POINTS, evenly."""
    step = max(1, -(-len(points) // MOST_POINTS))
    return points[torch.arange(0, len(points), step)]
