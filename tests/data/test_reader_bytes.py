"""Every layout by literal bytes: camera centres, axes and depth that were worked out by hand.

Nothing here is written by the library that reads it. In all folders the camera stands at (1, 2, 3)
unless the test says otherwise.
"""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest
import torch

from tests.data.literal import COLOUR_4X3, DEPTH_4X3, write
from vggt3.checks import DataError, UsageError
from vggt3.data.readers.dtu import eroded
from vggt3.data.readers.layout import read_scenes
from vggt3.data.readers.record import Scene, View
from vggt3.geometry.camera import camera_centres

TURN = "0 -1 0 1\n1 0 0 2\n0 0 1 3\n0 0 0 1\n"
"""World-from-camera: a quarter turn about z, the camera at (1, 2, 3)."""
INVERSE = "0 1 0 -2\n-1 0 0 1\n0 0 1 -3\n0 0 0 1\n"
"""The same, camera-from-world."""


def only(found: list[Scene]) -> View:
    (scene,) = found
    (view,) = scene.views
    return view


def sees(view: View, world: tuple[float, float, float]) -> list[float]:
    """A world point in the view's camera."""
    assert view.pose is not None
    pose = view.pose()
    point = torch.tensor(world, dtype=torch.float64)
    return [round(float(x), 6) + 0.0 for x in pose[:, :3] @ point + pose[:, 3]]


def stands(view: View) -> list[float]:
    assert view.pose is not None
    return [round(float(x), 6) for x in camera_centres(view.pose())]


def k(view: View) -> list[float]:
    """fx, fy, cx, cy."""
    assert view.intrinsics is not None
    found = view.intrinsics()
    return [float(found[0, 0]), float(found[1, 1]), float(found[0, 2]), float(found[1, 2])]


def depths(view: View) -> list[float]:
    """The first row."""
    return [round(float(x), 5) for x in view.depth_map()[0]]


def test_nrgbd(tmp_path: Path) -> None:
    """OpenGL: with no turn the camera looks along −z, and the world's y is up."""
    room = tmp_path / "kitchen"
    for n in (2, 10):
        write(room / "images" / f"img{n}.png", COLOUR_4X3)
        write(room / "depth" / f"depth{n}.png", DEPTH_4X3)
    still = b"1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n"
    write(room / "poses.txt", still * 2 + still + still * 7 + b"1 0 0 9\n" + still[8:])
    (scene,) = read_scenes("nrgbd", tmp_path)
    assert [view.name for view in scene.views] == ["img2", "img10"]
    assert stands(scene.views[1]) == [9, 2, 3]
    view = scene.views[0]
    assert stands(view) == [1, 2, 3]
    assert sees(view, (1, 2, 2)) == [0, 0, 1] and sees(view, (1, 3, 3)) == [0, -1, 0]
    assert sees(view, (2, 2, 3)) == [1, 0, 0]
    # Of these bytes NRGBD knows no 65535; it is 65.535 m.
    assert depths(view) == [1.234, 0, 65.535, 10.001]
    assert k(view) == pytest.approx([554.2562584220408 / 160] * 2 + [2, 1.5])
    write(room / "poses.txt", still * 3)
    with pytest.raises(DataError, match="4×4 matrix for each of 11 images, got 48 numbers"):
        read_scenes("nrgbd", tmp_path)


def test_dtu(tmp_path: Path) -> None:
    scan = tmp_path / "scan114"
    write(scan / "images/00000003.jpg", COLOUR_4X3)
    camera = f"extrinsic\n{INVERSE}\nintrinsic\n200 0 1.25\n0 300 0.75\n0 0 1\n\n425.0 2.5 \n"
    write(scan / "cams/00000003_cam.txt", camera.encode())
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"
    head += b" " * (117 - len(head)) + b"\n"
    values = struct.pack("<12f", 600.5, 0, -1, float("nan"), *[700.0] * 8)
    write(scan / "depths/00000003.npy", b"\x93NUMPY\x01\x00v\x00" + head + values)
    (scene,) = read_scenes("dtu", tmp_path)
    assert (scene.name, scene.unit) == ("scan114", "mm")
    view = scene.views[0]
    assert stands(view) == [1, 2, 3]
    # The camera's x points along the world's y.
    assert sees(view, (1, 3, 3)) == [1, 0, 0] and sees(view, (1, 2, 4)) == [0, 0, 1]
    assert k(view) == [200, 300, 1.75, 1.25]  # half a pixel more: from the corner
    assert depths(view) == [600.5, 0, 0, 0]
    write(scan / "cams/00000003_cam.txt", b"nothing")
    with pytest.raises(DataError, match="have a line 'extrinsic'"):
        view.pose()


def test_dtu_masks_lose_five_pixels_before_and_four_behind() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[10:30, 12:32] = True  # 20 × 20
    rows, columns = eroded(mask).nonzero().unbind(1)
    # A pixel p counts if p−5 … p+4 lie inside.
    assert (int(rows.min()), int(rows.max())) == (15, 25)
    assert (int(columns.min()), int(columns.max())) == (17, 27)
    assert eroded(torch.ones(12, 12, dtype=torch.bool)).all()


def test_eth3d(tmp_path: Path) -> None:
    site, kind = tmp_path / "courtyard", "custom_undistorted"
    write(site / "images" / kind / "DSC_0286.JPG", COLOUR_4X3)
    raw = struct.pack("<12f", 2.5, float("inf"), 0, -1, *[3.0] * 8)
    write(site / "ground_truth_depth" / kind / "DSC_0286.JPG", raw)
    write(site / f"{kind}_cam" / "DSC_0286.npz", NPZ)
    view = only(read_scenes("eth3d", tmp_path))
    assert stands(view) == [1, 2, 3] and sees(view, (1, 3, 3)) == [1, 0, 0]
    assert k(view) == [100, 110, 2.25, 1.5]  # COLMAP's: from the corner already
    assert depths(view) == [2.5, 0, 0, 0]
    write(site / "ground_truth_depth" / kind / "DSC_0286.JPG", raw[:-4])
    with pytest.raises(DataError, match=r"hold 3×4 raw float32 values.* got 44 bytes"):
        view.depth_map()


def test_wayspots_are_turned(tmp_path: Path) -> None:
    """Stored on its side; turned clockwise, what was on the left is on top."""
    place = tmp_path / "wayspots_lawn" / "test"
    write(place / "rgb/frame_00007.jpg", COLOUR_4X3)
    write(place / "calibration/calibration_00007.txt", b"5.5\n")
    write(place / "poses/pose_00007.txt", b"1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n")
    (scene,) = read_scenes("wayspots", tmp_path, "test")
    assert scene.name == "lawn" and read_scenes("wayspots", tmp_path)[0].name == "lawn"
    view = scene.views[0]
    assert view.size == (4, 3)
    image = view.image()
    assert image[:, 0, 2].tolist() == [255, 0, 0]  # top left → top right
    assert image[:, 3, 2].tolist() == [0, 255, 0]  # top right → bottom right
    assert image[:, 3, 0].tolist() == [0, 0, 255]  # bottom right → bottom left
    assert stands(view) == [1, 2, 3]
    assert sees(view, (1, 2, 4)) == [0, 0, 1]
    assert sees(view, (2, 2, 3)) == [0, 1, 0]  # stored right → down
    assert sees(view, (1, 3, 3)) == [-1, 0, 0]  # stored down → left
    assert k(view) == [5.5, 5.5, 1.5, 2]
    # A point in the stored image's top left is in the turned image's top right.
    x, y, z = sees(view, (1 - 1.5 / 5.5, 2 - 1.0 / 5.5, 4))
    assert (5.5 * x / z + 1.5, 5.5 * y / z + 2) == pytest.approx((2.5, 0.5), abs=1e-5)
    with pytest.raises(DataError, match="split train, got none"):
        read_scenes("wayspots", tmp_path, "train")


def test_sintel(tmp_path: Path) -> None:
    root = tmp_path / "training"
    write(root / "final/cave_2/frame_0001.png", COLOUR_4X3)
    depth = b"PIEH" + struct.pack("<ii12f", 4, 3, 1.5, *[2.0] * 11)
    write(root / "depth/cave_2/frame_0001.dpt", depth)
    intrinsics = struct.pack("<9d", 1120, 0, 511.5, 0, 1121, 217.5, 0, 0, 1)
    pose = struct.pack("<12d", 0, 1, 0, -2, -1, 0, 0, 1, 0, 0, 1, -3)
    write(root / "camdata_left/cave_2/frame_0001.cam", b"PIEH" + intrinsics + pose)
    view = only(read_scenes("sintel", tmp_path))
    assert stands(view) == [1, 2, 3] and sees(view, (1, 3, 3)) == [1, 0, 0]
    assert k(view) == [1120, 1121, 512, 218]  # the middle of 1024 × 436
    assert depths(view) == [1.5, 2, 2, 2]
    write(root / "depth/cave_2/frame_0001.dpt", b"HEIP" + depth[4:])
    with pytest.raises(DataError, match=r"a \.dpt file of Sintel"):
        view.depth_map()
    write(root / "depth/cave_2/frame_0001.dpt", depth[:-1])
    with pytest.raises(DataError, match="hold 3×4 float32 values"):
        view.depth_map()


def test_bonn(tmp_path: Path) -> None:
    film = tmp_path / "rgbd_bonn_crowd2"
    write(film / "rgb_110/1548339800.0.png", COLOUR_4X3)
    write(film / "depth_110/1548339800.1.png", DEPTH_4X3)
    (scene,) = read_scenes("bonn", tmp_path)
    assert scene.name == "crowd2" and depths(scene.views[0]) == [0.2468, 0, 13.107, 2.0002]
    write(film / "depth_110/1548339800.2.png", DEPTH_4X3)
    with pytest.raises(DataError, match="depth map for each of 1 images, got 2"):
        read_scenes("bonn", tmp_path)


def test_kitti(tmp_path: Path) -> None:
    place, drive = tmp_path / "depth_selection/val_selection_cropped", "2011_10_03_drive_0047_sync"
    for frame, camera in ((8, "02"), (5, "02"), (5, "03")):
        name = f"{drive}_image_{frame:010d}_image_{camera}.png"
        write(place / "image" / name, COLOUR_4X3)
        name = f"{drive}_groundtruth_depth_{frame:010d}_image_{camera}.png"
        write(place / "groundtruth_depth" / name, DEPTH_4X3)
    (scene,) = read_scenes("kitti", tmp_path)
    assert scene.name == drive and "of cameras 02, 03 only 02 is used" in scene.notes[0]
    assert [view.name[27:43] for view in scene.views] == ["image_0000000005", "image_0000000008"]
    assert depths(scene.views[0]) == [4.82031, 0, 255.99609, 39.06641]


def test_co3d(tmp_path: Path) -> None:
    """PyTorch3D: x_camera = x_world R + T, x to the left, y up."""
    category = tmp_path / "apple"
    write(category / "110_1/images/frame000004.jpg", COLOUR_4X3)
    write(category / "110_1/depths/frame000004.png", DEPTH_4X3)  # bits of float16
    entry = {
        "sequence_name": "110_1",
        "frame_number": 4,
        "image": {"path": "apple/110_1/images/frame000004.jpg", "size": [3, 4]},
        "depth": {"path": "apple/110_1/depths/frame000004.png", "scale_adjustment": 1024.0},
        "viewpoint": {
            "R": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
            "T": [3, -2, -1],
            "focal_length": [2.0, 4.0],
            "principal_point": [0.5, -0.5],
            "intrinsics_format": "ndc_isotropic",
        },
    }

    def stored() -> View:
        write(category / "frame_annotations.jgz", gzip.compress(json.dumps([entry]).encode()))
        return only(read_scenes("co3d", tmp_path))

    view = stored()
    # x_world R + T for (1, 2, 3): (−3, 2, 1) + (3, −2, −1) = 0.
    assert stands(view) == [1, 2, 3]
    # (1, 2, 4) → (−1, 0, 0) in x left, y up: one to the right here. (1, 3, 3) → up.
    assert sees(view, (1, 2, 4)) == [1, 0, 0] and sees(view, (1, 3, 3)) == [0, -1, 0]
    assert sees(view, (2, 2, 3)) == [0, 0, 1]
    assert k(view) == [3, 6, 2 - 0.75, 1.5 + 0.75]  # half the short side is 1.5 pixels
    # 1234 = 0x04d2: 2⁻¹⁴ · (1 + 210/1024); 65535 is not a number; 10001 = 0x2711: 2⁻⁶ · …
    first = 2.0**-14 * (1 + 210 / 1024) * 1024
    assert depths(view) == [round(first, 5), 0, 0, round(2.0**-6 * (1 + 785 / 1024) * 1024, 5)]
    entry["viewpoint"]["intrinsics_format"] = "ndc_norm_image_bounds"  # type: ignore[index]
    assert k(stored()) == [4, 6, 1, 2.25]
    write(category / "frame_annotations.jgz", b"[]")
    with pytest.raises(DataError, match=r"frame annotations of CO3Dv2 \(gzipped JSON\)"):
        read_scenes("co3d", tmp_path)


def test_scannet(tmp_path: Path) -> None:
    scan = tmp_path / "scene0707_00"
    for n in (2, 10, 11):
        write(scan / f"color/{n}.jpg", COLOUR_4X3)
        write(scan / f"depth/{n}.png", DEPTH_4X3)
        write(scan / f"pose/{n}.txt", TURN.encode())
    write(scan / "pose/11.txt", b"-inf -inf -inf -inf\n" * 4)
    camera = b"1170 0 647.5 0\n0 1171 483.5 0\n0 0 1 0\n0 0 0 1\n"
    write(scan / "intrinsic/intrinsic_color.txt", camera)
    (scene,) = read_scenes("scannet", tmp_path)
    assert [view.name for view in scene.views] == ["2", "10"]
    assert "1 frames without a pose are left out" in scene.notes[0]
    view = scene.views[0]
    assert stands(view) == [1, 2, 3] and sees(view, (1, 3, 3)) == [1, 0, 0]
    assert k(view) == [1170, 1171, 648, 484] and depths(view)[0] == 1.234


def test_tum(tmp_path: Path) -> None:
    film = tmp_path / "fr1"
    write(film / "rgb/a.png", COLOUR_4X3)
    write(film / "rgb/b.png", COLOUR_4X3)
    write(film / "depth/c.png", DEPTH_4X3)
    write(film / "rgb.txt", b"# color images\n# file: 'x.bag'\n10.00 rgb/a.png\n11 rgb/b.png\n")
    write(film / "depth.txt", b"10.01 depth/c.png\n9.98 depth/none.png\n")
    poses = b"9.5 0 0 0 0 0 0 1\n10.015 1 2 3 0 0 0.70710678118654752 0.70710678118654752\n"
    write(film / "groundtruth.txt", poses)
    (scene,) = read_scenes("tum", tmp_path)
    (first,) = scene.views
    assert stands(first) == [1, 2, 3] and sees(first, (1, 3, 3)) == [1, 0, 0]
    assert k(first) == [525 / 160, 525 / 160, 2, 1.5] and depths(first)[0] == 0.2468
    assert scene.notes == (  # the second image is a second off
        "TUM fr1: 1 images have no depth within 20 ms and are left out",
        "TUM fr1: 1 images have no pose within 20 ms and are left out",
    )
    (film / "groundtruth.txt").rename(film / "away.txt")
    (film / "depth.txt").rename(film / "far.txt")
    (scene,) = read_scenes("tum", tmp_path)  # what no list is there for, nobody misses
    assert [v.missing(("pose", "depth")) for v in scene.views] == [["pose", "depth"]] * 2
    (film / "far.txt").rename(film / "depth.txt")
    write(film / "groundtruth.txt", b"10.015 1 2 3 0 0 0 0\n")
    (scene,) = read_scenes("tum", tmp_path)
    with pytest.raises(DataError, match=r"groundtruth.txt must hold a quaternion of length 1"):
        stands(scene.views[0])
    write(film / "depth.txt", b"10.01 depth/c.png more\n")
    with pytest.raises(DataError, match=r"line 1 of .*depth.txt must hold a time and 1 more"):
        read_scenes("tum", tmp_path)


def test_captures(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", COLOUR_4X3)
    write(tmp_path / "images/b.png", COLOUR_4X3)
    write(tmp_path / "depth/a.png", DEPTH_4X3)
    rows = "[[0,-1,0,1],[1,0,0,2],[0,0,1,3],[0,0,0,1]]"
    listing = (
        '{"name": "desk", "scale": "arbitrary", "frames": [{"file": "images/a.png", "width": 4, '
        '"height": 3, "fx": 5, "fy": 6, "cx": 2.25, "cy": 1.5, "depth": "depth/a.png", '
        f'"camera_to_world": {rows}}}, {{"file": "images/b.png", "width": 4, "height": 3}}]}}'
    )
    write(tmp_path / "cameras.json", listing.encode())
    (scene,) = read_scenes("captures", tmp_path)
    assert scene.unit == "" and "1 photos without a camera" in scene.notes[0]
    view = scene.views[0]
    assert stands(view) == [1, 2, 3] and sees(view, (1, 3, 3)) == [1, 0, 0]
    assert k(view) == [5, 6, 2.25, 1.5] and depths(view) == [1.234, 0, 0, 10.001]
    for wrong, said in (
        (listing.replace("[[0,-1,0,1]", "[[5,-1,0,1]"), "hold a rotation, got one that is"),
        (listing.replace("[0,0,1,3]", "[0,0,-1,3]"), "hold a rotation, got a mirror image"),
        (listing.replace('"fx": 5', '"fx": -3'), "be positive, got -3 and 6"),
    ):
        write(tmp_path / "cameras.json", wrong.encode())
        with pytest.raises(DataError, match=said):
            read_scenes("captures", tmp_path)[0].cameras()
    told = listing.replace('"name"', '"pose_kind": "estimated", "name"')
    write(tmp_path / "cameras.json", told.encode())
    assert "estimates, not the truth" in read_scenes("captures", tmp_path)[0].notes[1]


def test_nerfstudio(tmp_path: Path) -> None:
    """OpenGL: with no turn the camera looks along −z, and the world's y is up."""
    write(tmp_path / "images/a.png", COLOUR_4X3)
    write(tmp_path / "depth/a.png", DEPTH_4X3)
    rows = "[[1,0,0,1],[0,1,0,2],[0,0,1,3],[0,0,0,1]]"
    frame = f'{{"file_path": "images/a.png", "transform_matrix": {rows}'
    shared = '"fl_x": 5, "fl_y": 6, "cx": 2.25, "cy": 1.5, "w": 4, "h": 3'
    whole = f'{{{shared}, "frames": [{frame}, "depth_file_path": "depth/a.png"}}]}}'
    write(tmp_path / "transforms.json", whole.encode())
    view = only(read_scenes("nerfstudio", tmp_path))
    assert stands(view) == [1, 2, 3]
    assert sees(view, (1, 2, 2)) == [0, 0, 1] and sees(view, (1, 3, 3)) == [0, -1, 0]
    assert k(view) == [5, 6, 2.25, 1.5] and depths(view)[0] == 1.234
    angle = f'{{"camera_angle_x": 1.5707963267948966, "w": 4, "h": 3, "frames": [{frame}}}]}}'
    write(tmp_path / "transforms.json", angle.encode())
    assert k(only(read_scenes("nerfstudio", tmp_path))) == pytest.approx([2, 2, 2, 1.5])
    write(tmp_path / "transforms.json", whole.replace('"w"', '"k1": 0.1, "w"').encode())
    with pytest.raises(DataError, match=r"pinhole camera \(undistort it\), got OPENCV with k1"):
        read_scenes("nerfstudio", tmp_path)


def test_colmap(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    write(tmp_path / "images/a.png", COLOUR_4X3)
    model = tmp_path / "sparse"
    write(model / "cameras.txt", b"7 SIMPLE_PINHOLE 4 3 5 2.25 1.5\n")
    # A quarter turn back about z, w first; t is −R c = (−2, 1, −3).
    half = b"0.70710678118654752 0 0 -0.70710678118654752"
    write(model / "images.txt", b"1 " + half + b" -2 1 -3 7 a.png\n\n")
    write(model / "points3D.txt", b"")
    view = only(read_scenes("colmap", tmp_path))
    assert stands(view) == [1, 2, 3]
    assert sees(view, (1, 3, 3)) == [1, 0, 0] and sees(view, (1, 2, 4)) == [0, 0, 1]
    assert k(view) == [5, 5, 2.25, 1.5] and view.depth is None
    write(model / "cameras.txt", b"7 SIMPLE_RADIAL 4 3 5 2.25 1.5 0.1\n")
    with pytest.raises(DataError, match="be a SIMPLE_PINHOLE or PINHOLE"):
        read_scenes("colmap", tmp_path)


def test_without_pycolmap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sparse/images.txt", b"")
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    with pytest.raises(UsageError, match=r"pip install 'vggt3\[colmap\]'"):
        read_scenes("colmap", tmp_path)


def npz(arrays: dict[str, bytes]) -> bytes:
    """A zip of stored .npy files, put together as its specification says."""
    import zlib

    body, index = b"", b""
    for name, content in arrays.items():
        file = f"{name}.npy".encode()
        size = len(content)
        facts = struct.pack(
            "<HHHHIIIHH", 0, 0, 0, 33, zlib.crc32(content), size, size, len(file), 0
        )
        index += struct.pack("<IHH", 0x02014B50, 20, 20) + facts[2:]
        index = index[: -len(facts[2:])] + facts[:-4] + struct.pack("<HH", len(file), 0)
        index += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + file
        body += struct.pack("<IH", 0x04034B50, 20) + facts + file + content
    count = len(arrays)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(index), len(body), 0)
    return body + index + end


def npy(shape: str, *values: float) -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (117 - len(head)) + b"\n"
    return b"\x93NUMPY\x01\x00v\x00" + head + struct.pack(f"<{len(values)}d", *values)


NPZ = npz(
    {
        "intrinsics": npy("(3, 3)", 100, 0, 2.25, 0, 110, 1.5, 0, 0, 1),
        "extrinsics": npy("(3, 4)", 0, 1, 0, -2, -1, 0, 0, 1, 0, 0, 1, -3),
    }
)
