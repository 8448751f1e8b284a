"""One scene, written in the layout of each data set: the tests' own writers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene
from vggt3.geometry.camera import compose_poses
from vggt3.geometry.rotation import matrix_to_quaternion, random_rotation

SIZE = (48, 64)
SEVEN = (52.5, 52.5)
"""7-Scenes' (and TUM's) focal lengths at 64 × 48."""
NRGBD = (55.42562584220408, 55.42562584220408)


@dataclass(frozen=True)
class Drawn:
    """A scene in a world that is no camera's."""

    images: Tensor
    """[V, 3, H, W] uint8."""
    depth: Tensor
    """[V, H, W] float64 metres, whole millimetres, 0 where nothing is."""
    pose: Tensor
    """[V, 3, 4] float64 camera_from_world."""
    k: Tensor
    """[3, 3] float64 pixels, origin at the corner."""

    @property
    def out(self) -> Tensor:
        """[V, 4, 4] world_from_camera."""
        return torch.linalg.inv(square(self.pose))


def square(pose: Tensor) -> Tensor:
    last = torch.tensor([0.0, 0, 0, 1]).double().expand(*pose.shape[:-2], 1, 4)
    return torch.cat([pose, last], dim=-2)


def drawn(focal: tuple[float, float] = SEVEN, views: int = 4) -> Drawn:
    height, width = SIZE
    k = torch.tensor([[focal[0], 0, width / 2], [0, focal[1], height / 2], [0, 0, 1]])
    scene = draw_scene(ProceduralConfig(views=views, size=SIZE, outdoors=0.0), 5, 3)
    scene = replace(scene, intrinsics=k.expand(1, views, 3, 3).float())
    batch = render(scene, samples=1)
    dice = torch.Generator().manual_seed(3)
    turn = random_rotation((), dice, torch.float64)
    shift = torch.tensor([[1.0], [-2.0], [0.5]]).double()
    pose = compose_poses(batch.camera_from_world[0].double(), torch.cat([turn, shift], 1))
    left, _, right = torch.linalg.svd(pose[..., :3])  # exactly, not as float32 has it
    pose = torch.cat([left @ right, pose[..., 3:]], dim=-1)
    depth = (batch.depth[0].double() * 1000).round() / 1000
    depth[:, :2, :3] = 0  # some unknown
    images = (batch.images[0] * 255).round().to(torch.uint8)
    return Drawn(images, depth, pose, k.double())


def save_image(path: Path, image: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(path, quality=95)


def save_depth(path: Path, steps: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(steps.round().numpy().astype(np.uint16)).save(path)


def save_matrix(path: Path, matrix: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix.numpy(), fmt="%.17g")


def write_sevenscenes(root: Path, scene: Drawn) -> None:
    folder = root / "chess" / "seq-03"
    for n, image in enumerate(scene.images):
        save_image(folder / f"frame-{n:06d}.color.png", image)
        mm = torch.where(scene.depth[n] > 0, scene.depth[n] * 1000, 65535)
        save_depth(folder / f"frame-{n:06d}.depth.proj.png", mm)
        save_matrix(folder / f"frame-{n:06d}.pose.txt", scene.out[n])
    (root / "chess" / "TestSplit.txt").write_text("sequence3\nsequence5\n")
    (root / "chess" / "TrainSplit.txt").write_text("sequence1\n")


def write_nrgbd(root: Path, scene: Drawn) -> None:
    folder = root / "whiteroom"
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1])).double()
    save_matrix(root / "whiteroom" / "poses.txt", torch.cat([out @ flip for out in scene.out]))
    for n, image in enumerate(scene.images):
        save_image(folder / "images" / f"img{n}.png", image)
        save_depth(folder / "depth" / f"depth{n}.png", scene.depth[n] * 1000)


def write_dtu(root: Path, scene: Drawn) -> None:
    folder = root / "scan4"
    for n, image in enumerate(scene.images):
        save_image(folder / "images" / f"{n:08d}.jpg", image)
        for part in ("cams", "depths", "binary_masks"):
            (folder / part).mkdir(exist_ok=True)
        np.save(folder / "depths" / f"{n:08d}.npy", (scene.depth[n] * 1000).float().numpy())
        full = np.full(SIZE, 255, np.uint8)
        Image.fromarray(full).save(folder / "binary_masks" / f"{n:08d}.png")
        pose = square(scene.pose[n]).clone()
        pose[:3, 3] *= 1000
        k = scene.k.clone()
        k[:2, 2] -= 0.5
        lines = [" ".join(f"{x:.17g}" for x in row) for row in pose.tolist()]
        more = [" ".join(f"{x:.17g}" for x in row) for row in k.tolist()]
        text = ["extrinsic", *lines, "", "intrinsic", *more, "", "425.0 2.5", ""]
        (folder / "cams" / f"{n:08d}_cam.txt").write_text("\n".join(text))


def write_eth3d(root: Path, scene: Drawn) -> None:
    folder, kind = root / "relief_2", "custom_undistorted"
    for part in (f"ground_truth_depth/{kind}", f"{kind}_cam"):
        (folder / part).mkdir(parents=True)
    for n, image in enumerate(scene.images):
        name = f"DSC_{n:04d}"
        jpeg = folder / "images" / kind / f"{name}.JPG"
        save_image(jpeg, image)
        raw = torch.where(scene.depth[n] > 0, scene.depth[n], torch.inf).float().numpy()
        raw.astype("<f4").tofile(folder / "ground_truth_depth" / kind / f"{name}.JPG")
        camera = {"intrinsics": scene.k.numpy(), "extrinsics": square(scene.pose[n]).numpy()}
        np.savez(folder / f"{kind}_cam" / f"{name}.npz", **camera)


def write_wayspots(root: Path, scene: Drawn) -> None:
    """Stored as the phone had it: turned back, anticlockwise."""
    back = torch.tensor([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).double()
    for n, image in enumerate(scene.images):
        folder, number = root / "wayspots_bears" / ("test" if n % 2 else "train"), f"{n:05d}"
        save_image(folder / "rgb" / f"frame_{number}.jpg", torch.rot90(image, 1, (1, 2)))
        stored = torch.linalg.inv(back @ square(scene.pose[n]))
        save_matrix(folder / "poses" / f"pose_{number}.txt", stored)
        (folder / "calibration").mkdir(exist_ok=True)
        (folder / "calibration" / f"calibration_{number}.txt").write_text(f"{scene.k[0, 0]}\n")


def write_sintel(root: Path, scene: Drawn) -> None:
    tag = np.array([202021.25], "<f4").tobytes()
    for n, image in enumerate(scene.images, 1):
        name = f"alley_2/frame_{n:04d}"
        save_image(root / "training/final" / f"{name}.png", image)
        for part in ("depth", "camdata_left"):
            (root / "training" / part / "alley_2").mkdir(parents=True, exist_ok=True)
        size = np.array(SIZE[::-1], "<i4").tobytes()
        depth = scene.depth[n - 1].numpy().astype("<f4").tobytes()
        (root / "training/depth" / f"{name}.dpt").write_bytes(tag + size + depth)
        k = scene.k.clone()
        k[:2, 2] -= 0.5
        camera = k.numpy().astype("<f8").tobytes() + scene.pose[n - 1].numpy().tobytes()
        (root / "training/camdata_left" / f"{name}.cam").write_bytes(tag + camera)


def write_bonn(root: Path, scene: Drawn) -> None:
    for n, image in enumerate(scene.images):
        folder = root / "rgbd_bonn_balloon2"
        save_image(folder / "rgb_110" / f"1548266470.{n:05d}.png", image)
        save_depth(folder / "depth_110" / f"1548266470.{n + 3:05d}.png", scene.depth[n] * 5000)


def write_kitti(root: Path, scene: Drawn) -> None:
    place = root / "val_selection_cropped"
    for n, image in enumerate(scene.images):
        drive = "2011_09_26_drive_0002_sync"
        save_image(place / "image" / f"{drive}_image_{n:010d}_image_02.png", image)
        name = f"{drive}_groundtruth_depth_{n:010d}_image_02.png"
        save_depth(place / "groundtruth_depth" / name, scene.depth[n] * 256)


def write_co3d(root: Path, scene: Drawn) -> None:
    height, width = SIZE
    turned, half = torch.diag(torch.tensor([-1.0, -1, 1])).double(), height / 2
    entries = []
    for n, image in enumerate(scene.images, 1):
        place = f"apple/110_1_2/{{}}/frame{n:06d}.{{}}"
        save_image(root / place.format("images", "jpg"), image)
        bits = (scene.depth[n - 1] / 2).numpy().astype(np.float16).view(np.uint16)
        save_depth(root / place.format("depths", "png"), torch.from_numpy(bits.astype(np.int64)))
        pose = turned @ scene.pose[n - 1]
        viewpoint = {
            "R": pose[:, :3].T.tolist(),
            "T": pose[:, 3].tolist(),
            "focal_length": [float(scene.k[0, 0]) / half, float(scene.k[1, 1]) / half],
            "principal_point": [
                (width / 2 - float(scene.k[0, 2])) / half,
                (height / 2 - float(scene.k[1, 2])) / half,
            ],
            "intrinsics_format": "ndc_isotropic",
        }
        depth = {"path": place.format("depths", "png"), "scale_adjustment": 2.0}
        entries.append(
            {
                "sequence_name": "110_1_2",
                "frame_number": n,
                "image": {"path": place.format("images", "jpg"), "size": list(SIZE)},
                "depth": depth,
                "viewpoint": viewpoint,
            }
        )
    packed = gzip.compress(json.dumps(entries).encode())
    (root / "apple" / "frame_annotations.jgz").write_bytes(packed)


def write_scannet(root: Path, scene: Drawn) -> None:
    folder = root / "scene0000_00"
    for n, image in enumerate(scene.images):
        save_image(folder / "color" / f"{n}.jpg", image)
        save_depth(folder / "depth" / f"{n}.png", scene.depth[n] * 1000)
        save_matrix(folder / "pose" / f"{n}.txt", scene.out[n])
    k = torch.eye(4).double()
    k[:3, :3] = scene.k
    k[:2, 2] -= 0.5
    save_matrix(folder / "intrinsic" / "intrinsic_color.txt", k)


def write_tum(root: Path, scene: Drawn) -> None:
    folder = root / "freiburg1_desk"
    rgb, depth, poses = ["# color images"], ["# depth"], ["# timestamp tx ty tz qx qy qz qw"]
    for n, image in enumerate(scene.images):
        when = 1305031102 + n / 30
        save_image(folder / "rgb" / f"{when:.6f}.png", image)
        save_depth(folder / "depth" / f"{when + 0.01:.6f}.png", scene.depth[n] * 5000)
        rgb.append(f"{when:.6f} rgb/{when:.6f}.png")
        depth.append(f"{when + 0.01:.6f} depth/{when + 0.01:.6f}.png")
        out = scene.out[n]
        values = [*out[:3, 3].tolist(), *matrix_to_quaternion(out[:3, :3]).tolist()]
        poses.append(" ".join([f"{when - 0.005:.6f}", *(f"{x:.17g}" for x in values)]))
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_captures(root: Path, scene: Drawn) -> None:
    frames = []
    for n, image in enumerate(scene.images):
        save_image(root / "room" / "images" / f"{n:04d}.png", image)
        save_depth(root / "room" / "depth" / f"{n:04d}.png", scene.depth[n] * 1000)
        k, (height, width) = scene.k, SIZE
        frames.append(
            {
                "file": f"images/{n:04d}.png", "width": width, "height": height,
                "fx": float(k[0, 0]), "fy": float(k[1, 1]), "cx": float(k[0, 2]),
                "cy": float(k[1, 2]), "camera_to_world": scene.out[n].tolist(),
                "depth": f"depth/{n:04d}.png",
            }
        )  # fmt: skip
    content = {"name": "room", "scale": "metric (metres)", "frames": frames}
    (root / "room" / "cameras.json").write_text(json.dumps(content))


def write_nerfstudio(root: Path, scene: Drawn) -> None:
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1])).double()
    frames = []
    for n, image in enumerate(scene.images):
        save_image(root / "room" / "images" / f"{n}.png", image)
        save_depth(root / "room" / "depth" / f"{n}.png", scene.depth[n] * 1000)
        frames.append(
            {
                "file_path": f"images/{n}.png",
                "transform_matrix": (scene.out[n] @ flip).tolist(),
                "depth_file_path": f"depth/{n}.png",
            }
        )
    k, (height, width) = scene.k, SIZE
    shared = {"fl_x": float(k[0, 0]), "fl_y": float(k[1, 1]), "cx": float(k[0, 2])}
    shared |= {"cy": float(k[1, 2]), "w": width, "h": height}
    content = {"camera_model": "OPENCV", "k1": 0.0, **shared, "frames": frames}
    (root / "room" / "transforms.json").write_text(json.dumps(content))


def write_colmap(root: Path, scene: Drawn) -> None:
    model, k = root / "sparse" / "0", scene.k
    model.mkdir(parents=True)
    size = f"{SIZE[1]} {SIZE[0]}"
    camera = f"{k[0, 0]:.17g} {k[1, 1]:.17g} {k[0, 2]:.17g} {k[1, 2]:.17g}"
    (model / "cameras.txt").write_text(f"# cameras\n1 PINHOLE {size} {camera}\n")
    lines = ["# images"]
    for n, image in enumerate(scene.images):
        save_image(root / "images" / f"{n}.png", image)
        x, y, z, w = matrix_to_quaternion(scene.pose[n, :, :3]).tolist()
        values = " ".join(f"{v:.17g}" for v in (w, x, y, z, *scene.pose[n, :, 3].tolist()))
        lines += [f"{n + 1} {values} 1 {n}.png", ""]
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    (model / "points3D.txt").write_text("# points\n")


WRITERS: dict[str, Callable[[Path, Drawn], None]] = {
    "sevenscenes": write_sevenscenes,
    "nrgbd": write_nrgbd,
    "dtu": write_dtu,
    "eth3d": write_eth3d,
    "wayspots": write_wayspots,
    "sintel": write_sintel,
    "bonn": write_bonn,
    "kitti": write_kitti,
    "co3d": write_co3d,
    "scannet": write_scannet,
    "tum": write_tum,
    "captures": write_captures,
    "nerfstudio": write_nerfstudio,
    "colmap": write_colmap,
}
