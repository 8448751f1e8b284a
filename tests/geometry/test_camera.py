"""The 9-vector and changes of frame."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from vggt3.geometry.camera import (
    camera_centres,
    compose_poses,
    decode_pose,
    encode_pose,
    invert_pose,
    look_at,
    normalise_to_first,
    pinhole,
    relative_poses,
)
from vggt3.geometry.rotation import random_rotation

SIZE = (56, 70)


def poses(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = random_rotation(shape, generator, torch.float64)
    translation = torch.randn(*shape, 3, 1, generator=generator, dtype=torch.float64)
    return torch.cat([rotation, translation], dim=-1)


def identity(*shape: int) -> Tensor:
    return torch.eye(3, 4, dtype=torch.float64).expand(*shape, 3, 4)


def test_inverse_and_composition_agree() -> None:
    a = poses((4, 5))
    torch.testing.assert_close(compose_poses(a, invert_pose(a)), identity(4, 5))
    torch.testing.assert_close(invert_pose(invert_pose(a)), a)
    b = poses((4, 5), seed=1)
    points = torch.randn(4, 5, 3, 1, dtype=torch.float64)
    by_steps = a[..., :3] @ (b[..., :3] @ points + b[..., 3:]) + a[..., 3:]
    composed = compose_poses(a, b)
    torch.testing.assert_close(composed[..., :3] @ points + composed[..., 3:], by_steps)


def test_centre_is_seen_at_the_origin() -> None:
    pose = poses((7,))
    centre = camera_centres(pose)
    seen = (pose[..., :3] @ centre[..., None] + pose[..., 3:]).squeeze(-1)
    torch.testing.assert_close(seen, torch.zeros(7, 3, dtype=torch.float64))


def test_relative_poses_of_all_pairs() -> None:
    pose = poses((2, 4))
    pairs = relative_poses(pose)
    assert pairs.shape == (2, 4, 4, 3, 4)
    for i in range(4):
        torch.testing.assert_close(pairs[:, i, i], identity(2))
        for j in range(4):
            torch.testing.assert_close(compose_poses(pairs[:, i, j], pose[:, j]), pose[:, i])


def test_first_camera_becomes_the_world() -> None:
    pose = poses((3, 5))
    first = normalise_to_first(pose)
    torch.testing.assert_close(first[:, 0], identity(3))
    torch.testing.assert_close(relative_poses(first), relative_poses(pose))


def test_pose_encoding_round_trip() -> None:
    pose = poses((3, 5))
    focal = torch.linspace(30, 200, 15, dtype=torch.float64).reshape(3, 5)
    intrinsics = pinhole(focal, focal * 1.1, SIZE)
    encoding = encode_pose(pose, intrinsics, SIZE)
    assert encoding.shape == (3, 5, 9)
    back_pose, back_intrinsics = decode_pose(encoding, SIZE)
    torch.testing.assert_close(back_pose, pose)
    torch.testing.assert_close(back_intrinsics, intrinsics)


def test_pose_encoding_by_hand() -> None:
    encoding = torch.tensor([1.0, 2, 3, 0, 0, 2, 2, math.pi / 2, math.pi / 3])
    pose, intrinsics = decode_pose(encoding, (100, 60))
    wanted = torch.tensor([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]])
    torch.testing.assert_close(pose, wanted)
    wanted = torch.tensor([[30 * math.sqrt(3), 0, 30], [0, 50, 50], [0, 0, 1.0]])
    torch.testing.assert_close(intrinsics, wanted)


def test_zero_field_of_view_is_an_infinite_focal_length() -> None:
    _, intrinsics = decode_pose(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 0, 0]), SIZE)
    assert intrinsics[0, 0] == intrinsics[1, 1] == math.inf
    assert intrinsics[0, 2] == 35 and intrinsics[1, 2] == 28


def test_look_at_keeps_up_upwards() -> None:
    centre = torch.tensor([[0.0, 0, 2], [3, 1, 1]])
    target = torch.tensor([[0.0, 5, 2], [0, 0, 0]])
    up = torch.tensor([0.0, 0, 1]).expand(2, 3)
    pose = look_at(centre, target, up)
    torch.testing.assert_close(torch.linalg.det(pose[..., :3]), torch.ones(2))
    torch.testing.assert_close(camera_centres(pose), centre)
    seen = (pose[..., :3] @ target[..., None]).squeeze(-1) + pose[..., 3]
    torch.testing.assert_close(seen[:, :2], torch.zeros(2, 2), atol=1e-6, rtol=0)
    assert (seen[:, 2] > 0).all()
    assert ((pose[..., :3] @ up[..., None])[:, 1] < 0).all()
    torch.testing.assert_close(pose[0, 0, :3], torch.tensor([1.0, 0, 0]))


@pytest.mark.parametrize("part", [0, 1])
def test_gradients(part: int) -> None:
    encoding = torch.randn(4, 9, dtype=torch.float64)
    encoding[:, 7:] = 1.0 + 0.1 * encoding[:, 7:]
    encoding.requires_grad_()
    assert gradcheck(lambda e: decode_pose(e, SIZE)[part], encoding)
    pose = poses((4,)).requires_grad_()
    intrinsics = pinhole(torch.ones(4).double() * 50, torch.ones(4).double() * 60, SIZE)
    assert gradcheck(lambda p: encode_pose(p, intrinsics, SIZE), pose)
    assert gradcheck(normalise_to_first, pose)
