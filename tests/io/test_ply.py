"""points.ply: binary, coloured, and what is no such file is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vggt3.checks import DataError, UsageError
from vggt3.io import read_cloud, write_cloud

HEADER = b"ply\nformat binary_little_endian 1.0\n"


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_round_trip(tmp_path: Path, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    xyz = torch.randn(count, 3, generator=generator)
    rgb = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
    write_cloud(tmp_path / "a.ply", xyz, rgb)
    again_xyz, again_rgb = read_cloud(tmp_path / "a.ply")
    assert torch.equal(again_xyz, xyz) and torch.equal(again_rgb, rgb)
    size = (tmp_path / "a.ply").stat().st_size
    assert size - (tmp_path / "a.ply").read_bytes().index(b"end_header\n") == 11 + 15 * count


def test_other_properties_and_elements_are_passed_over(tmp_path: Path) -> None:
    header = HEADER + (
        b"comment hi\nelement vertex 1\nproperty double x\nproperty float nx\n"
        b"property double y\nproperty double z\nelement face 0\n"
        b"property list uchar int vertex_indices\nend_header\n"
    )
    body = torch.tensor([1.5], dtype=torch.float64).numpy().tobytes()
    (tmp_path / "a.ply").write_bytes(header + body + b"\0" * 4 + body + body)
    xyz, rgb = read_cloud(tmp_path / "a.ply")
    assert xyz.tolist() == [[1.5, 1.5, 1.5]] and rgb.tolist() == [[255, 255, 255]]


XYZ = b"property float x\nproperty float y\nproperty float z\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a file without its header"),
        (b"hello", "a file without its header"),
        (HEADER + b"element vertex 1\n" + XYZ, "a file without its header"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n", "got format ascii 1.0"),
        (HEADER + b"element vertex 1\nproperty float x\nend_header\n", "no points with x, y"),
        (HEADER + b"element vertex -1\n" + XYZ + b"end_header\n", "no points with x, y"),
        (HEADER + b"element vertex 9\n" + XYZ + b"end_header\n1234", "cut off: 4 bytes for 9"),
        (HEADER + b"element vertex 1\nproperty list uchar int a\nend_header\n", "got 'property"),
        (HEADER + b"element face 1\nelement vertex 1\n" + XYZ + b"end_header\n", "before the"),
        (HEADER + b"element vertex 1\n" + XYZ + XYZ + b"end_header\n", "named twice"),
    ],
)
def test_files_that_are_no_cloud(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(DataError, match=rf"'.*a\.ply' must be a binary .*{message}"):
        read_cloud(tmp_path / "a.ply")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_cloud(tmp_path / "a.ply")


def test_wrong_shapes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"xyz must have shape \[N, 3\]"):
        write_cloud(tmp_path / "a.ply", torch.zeros(3), torch.zeros(3, 3, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"rgb must be \[3, 3\]"):
        write_cloud(tmp_path / "a.ply", torch.zeros(3, 3), torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(UsageError, match="rgb must be uint8"):
        write_cloud(tmp_path / "a.ply", torch.zeros(3, 3), torch.zeros(3, 3))


def test_the_captures_clouds(captures_dir: Path) -> None:
    files = sorted(captures_dir.glob("*/points.ply"))
    assert files
    for path in files:
        xyz, rgb = read_cloud(path)
        assert len(xyz) > 100 and xyz.isfinite().all() and rgb.float().std() > 1
