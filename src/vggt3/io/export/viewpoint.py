"""Where the preview looks at a scene from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FIELD = 0.36
"""Half of the picture over the distance: a long lens, so that sizes can be compared."""

_MARGIN = 0.93
"""Part of the picture that the robust bounds may fill."""


@dataclass(frozen=True)
class Viewpoint:
    """A perspective camera with a shift and a scale that fit the scene into a picture."""

    rotation: Array
    """[3, 3] viewpoint-from-world, OpenCV axes."""
    eye: Array
    """[3] in the world."""
    size: tuple[int, int]
    """(height, width) of the picture in pixels."""
    scale: float = 1.0
    """Pixels per unit of x/z and y/z."""
    centre: tuple[float, float] = (0.0, 0.0)
    """x/z and y/z at the middle of the picture."""

    def project(
        self,
        points: Array,  # [N, 3] world
    ) -> tuple[Array, Array]:
        """Pixel coordinates [N, 2] (x, y), NaN behind the eye, and depths [N] along z."""
        seen = (points - self.eye) @ self.rotation.T
        depth = seen[:, 2]
        ahead = np.where(depth > 1e-9, depth, np.nan)
        across = (seen[:, :2] / ahead[:, None] - self.centre) * self.scale
        height, width = self.size
        return across + np.array([width / 2, height / 2]), depth


@dataclass(frozen=True)
class SceneFrame:
    """The directions of a scene and its robust bounds, from cameras and points."""

    axes: Array
    """[3, 3] rows: right, up and forward of the cameras on the whole, unit length."""
    middle: Array
    """[3] world."""
    radius: float
    """Half of the diagonal of the robust bounds, scene units, above 0."""


def scene_frame(
    points: Array,  # [N, 3] world, finite
    poses: Array,  # [V, 3, 4] world from camera, finite
) -> SceneFrame:
    """Up is where most cameras have it, forward along their mean z axis."""
    axes = _axes(poses)
    centres = poses[:, :, 3]
    low, high = _bounds([points @ axes.T, centres @ axes.T])
    extent = float(np.linalg.norm(high - low)) / 2
    return SceneFrame(axes, ((low + high) / 2) @ axes, max(extent, 1e-6))


def look(
    frame: SceneFrame,
    size: tuple[int, int],  # height, width in pixels
    azimuth_deg: float,
    elevation_deg: float,
) -> Viewpoint:
    """From behind the cameras, turned by ``azimuth_deg`` to their right and raised."""
    turn, rise = np.radians(azimuth_deg), np.radians(elevation_deg)
    right, up, forward = frame.axes
    level = np.cos(turn) * forward - np.sin(turn) * right
    ahead = np.cos(rise) * level - np.sin(rise) * up
    across = np.cos(turn) * right + np.sin(turn) * forward
    rotation = np.stack([across, np.cross(ahead, across), ahead])
    eye = frame.middle - ahead * frame.radius * (1 + 1 / _FIELD)
    return Viewpoint(rotation, eye, size)


def fitted(
    viewpoint: Viewpoint,
    points: Array,  # [N, 3] world
    must_show: Array,  # [M, 3] world, such as the cameras
) -> Viewpoint:
    """``viewpoint`` shifted and scaled so that nearly all points and ``must_show`` are seen."""
    height, width = viewpoint.size
    plain = replace(viewpoint, scale=1.0, centre=(0.0, 0.0))
    middle = (width / 2, height / 2)
    clouds = [plain.project(group)[0] - middle for group in (points, must_show)]
    low, high = _bounds([cloud[np.isfinite(cloud).all(axis=1)] for cloud in clouds])
    span = np.maximum(high - low, 1e-9)
    scale = _MARGIN * min(width / span[0], height / span[1])
    centre = (low + high) / 2
    return replace(plain, scale=float(scale), centre=(float(centre[0]), float(centre[1])))


def _bounds(
    groups: list[Array],  # points, then cameras: [N, D], [M, D]
) -> tuple[Array, Array]:
    """Low and high corners that hold the bulk of the points and, if not far off, all cameras."""
    points, cameras = groups
    if len(points) == 0:
        points = cameras if len(cameras) else np.zeros((1, cameras.shape[1]))
    low, high = np.percentile(points, [3, 97], axis=0)
    reach = 0.14 * (high - low)
    low, high = low - reach, high + reach
    if len(cameras) == 0:
        return low, high
    # A camera thrown far out by a failed pose must not shrink the scene to a dot.
    far = 1.5 * (high - low).max()
    near = cameras[((cameras > low - far) & (cameras < high + far)).all(axis=1)]
    both = np.concatenate([np.stack([low, high]), near])
    return both.min(axis=0), both.max(axis=0)


def _axes(poses: Array) -> Array:
    if len(poses) == 0:
        return np.diag([1.0, -1.0, 1.0])
    up = _up(poses)
    ahead = poses[:, :, 2].mean(axis=0)
    first = poses[0, :, 2]
    # Cameras that look inwards from all around have no common direction: take the first's.
    ahead = ahead if np.linalg.norm(ahead) > 0.2 else first
    level = ahead - (ahead @ up) * up
    forward = _unit(level, np.cross(poses[0, :, 0], up))
    return np.stack([np.cross(forward, up), up, forward])


def _up(poses: Array) -> Array:
    """Against the mean y axis, turned so that the cameras' x axes lie level where they can tell.

    People hold cameras level but pitch them up and down: as soon as they also turn, their x axes
    say better than their y axes where up is.
    """
    mean = _unit(-poses[:, :, 1].mean(axis=0), -poses[0, :, 1])
    sideways = poses[:, :, 0]
    doubt = 0.01
    spread = sideways.T @ sideways / len(poses) + doubt * np.eye(3)
    level = _unit(np.asarray(np.linalg.solve(spread, mean), np.float64), mean)
    return level if level @ mean > 0.7 else mean


def _unit(vector: Array, otherwise: Array) -> Array:
    length = np.linalg.norm(vector)
    return vector / length if length > 1e-6 else otherwise / np.linalg.norm(otherwise)
