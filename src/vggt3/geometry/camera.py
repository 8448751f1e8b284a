"""Poses [3, 4], the 9-vector that the camera head speaks, and changes of frame.

A pose ``a_from_b`` is [..., 3, 4]: rotation and translation that take points of frame b to frame
a. Cameras have OpenCV axes (x right, y down, z forward).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggt3.geometry.rotation import matrix_to_quaternion, quaternion_to_matrix


def encode_pose(
    camera_from_world: Tensor,  # [..., 3, 4]
    intrinsics: Tensor,  # [..., 3, 3] pixels
    size: tuple[int, int],
) -> Tensor:
    """The 9-vector [..., 9]: translation 3, quaternion xyzw 4, FoV height, FoV width (radians).

    ``size`` is (height, width) in pixels. The principal point is not carried.
    """
    height, width = size
    fov_height = 2 * torch.atan((height / 2) / intrinsics[..., 1, 1])
    fov_width = 2 * torch.atan((width / 2) / intrinsics[..., 0, 0])
    return torch.cat(
        [
            camera_from_world[..., 3],
            matrix_to_quaternion(camera_from_world[..., :3]),
            torch.stack([fov_height, fov_width], dim=-1),
        ],
        dim=-1,
    )


def decode_pose(
    encoding: Tensor,  # [..., 9]
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """camera_from_world [..., 3, 4] and intrinsics [..., 3, 3] (pixels) of the 9-vector.

    The quaternion may have any length. The principal point is the image's centre. The field of
    view is not clamped: 0 gives an infinite focal length.
    """
    height, width = size
    rotation = quaternion_to_matrix(encoding[..., 3:7])
    camera_from_world = torch.cat([rotation, encoding[..., :3, None]], dim=-1)
    focal_y = (height / 2) / torch.tan(encoding[..., 7] / 2)
    focal_x = (width / 2) / torch.tan(encoding[..., 8] / 2)
    return camera_from_world, pinhole(focal_x, focal_y, size)


def pinhole(
    focal_x: Tensor,  # [...] pixels
    focal_y: Tensor,  # [...] pixels
    size: tuple[int, int],
) -> Tensor:
    """Intrinsics [..., 3, 3] in pixels with the principal point at the centre of ``size``."""
    height, width = size
    zero, one = torch.zeros_like(focal_x), torch.ones_like(focal_x)
    rows = [
        [focal_x, zero, one * (width / 2)],
        [zero, focal_y, one * (height / 2)],
        [zero, zero, one],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def compose_poses(
    a_from_b: Tensor,  # [..., 3, 4]
    b_from_c: Tensor,  # [..., 3, 4]
) -> Tensor:
    """a_from_c [..., 3, 4]: first ``b_from_c``, then ``a_from_b``."""
    rotation = a_from_b[..., :3]
    translation = rotation @ b_from_c[..., 3:] + a_from_b[..., 3:]
    return torch.cat([rotation @ b_from_c[..., :3], translation], dim=-1)


def invert_pose(
    a_from_b: Tensor,  # [..., 3, 4]
) -> Tensor:
    """b_from_a [..., 3, 4]."""
    rotation = a_from_b[..., :3].transpose(-1, -2)
    return torch.cat([rotation, -rotation @ a_from_b[..., 3:]], dim=-1)


def camera_centres(
    camera_from_world: Tensor,  # [..., 3, 4]
) -> Tensor:
    """Centres of the cameras [..., 3] in the world frame, scene units."""
    return invert_pose(camera_from_world)[..., 3]


def relative_poses(
    camera_from_world: Tensor,  # [..., V, 3, 4]
) -> Tensor:
    """All pairs: entry [..., i, j] of [..., V, V, 3, 4] takes camera j's frame to camera i's."""
    world_from_camera = invert_pose(camera_from_world)
    return compose_poses(
        camera_from_world.unsqueeze(-3),  # [..., V, 1, 3, 4]
        world_from_camera.unsqueeze(-4),  # [..., 1, V, 3, 4]
    )


def normalise_to_first(
    camera_from_world: Tensor,  # [..., V, 3, 4]
) -> Tensor:
    """The same cameras [..., V, 3, 4] in a world that is the first camera's frame."""
    world_from_first = invert_pose(camera_from_world[..., :1, :, :])
    return compose_poses(camera_from_world, world_from_first)


def look_at(
    centre: Tensor,  # [..., 3] camera centre in the world
    target: Tensor,  # [..., 3] point on the optical axis
    up: Tensor,  # [..., 3] world direction that appears upwards (image −y)
) -> Tensor:
    """camera_from_world [..., 3, 4] of cameras at ``centre`` that look at ``target``.

    ``up`` must not be parallel to the optical axis.
    """
    forward = torch.nn.functional.normalize(target - centre, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=-2)
    return torch.cat([rotation, -rotation @ centre[..., None]], dim=-1)
