"""Frames of a video as photos."""

from __future__ import annotations

import importlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vggt3.checks import DataError, UsageError
from vggt3.io import read_video, read_views

av = pytest.importorskip("av", reason="PyAV is not installed")


def write_video(
    path: Path,
    count: int = 20,
    *,
    size: tuple[int, int] = (48, 64),
    times: list[int] | None = None,
    **settings: Any,
) -> Path:
    """``count`` frames, 10 a second; frame i is of grey 10·i with a red top left quarter."""
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if "aspect" in settings:
            stream.sample_aspect_ratio = settings["aspect"]
        if "rotation" in settings:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation")
            stream.set_display_rotation(settings["rotation"])
        for number in range(count):
            pixels = np.full((height, width, 3), 10 * number % 250, np.uint8)
            pixels[: height // 2, : width // 2] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 10)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def numbers(names: tuple[str, ...]) -> list[int]:
    assert all(name.startswith("frame_") and len(name) == 12 for name in names)
    return [int(name.removeprefix("frame_")) for name in names]


def test_every_so_many_seconds(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    calls: list[tuple[int, int]] = []
    found = read_video(path, long_side=56, every=0.4, progress=lambda *c: calls.append(c))
    assert numbers(found.names) == [0, 4, 8, 12, 16]
    assert calls == [(n, 5) for n in range(1, 6)]
    assert found.sizes == ((42, 56),) * 5 and found.original_sizes == ((48, 64),) * 5
    greys = [int(photo.image[1, -4, -4]) for photo in found.photos]
    assert np.abs(np.array(greys) - [0, 40, 80, 120, 160]).max() < 8
    assert found.photos[0].path == path


def test_half_a_second_is_the_default(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert numbers(read_video(path, long_side=56).names) == [0, 5, 10, 15]


def test_time_counts_and_not_the_number_of_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 6, times=[0, 1, 2, 10, 20, 21])
    assert numbers(read_video(path, long_side=56, every=1.0).names) == [0, 3, 4]


@pytest.mark.parametrize(
    ("frames", "expected"), [(1, [0]), (2, [0, 19]), (3, [0, 9, 19]), (99, list(range(20)))]
)
def test_so_many_frames(tmp_path: Path, frames: int, expected: list[int]) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert numbers(read_video(path, long_side=56, frames=frames).names) == expected


def test_a_step_below_a_frame_takes_each_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    assert numbers(read_video(path, long_side=56, every=0.001).names) == [0, 1, 2, 3, 4]


def test_a_stream_without_a_clock(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.m4v", 6)  # Raw MPEG-4: no timestamps.
    assert numbers(read_video(path, long_side=56, frames=2).names) == [0, 5]


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_is_obeyed(tmp_path: Path, rotation: int) -> None:
    path = write_video(tmp_path / "a.mp4", 3, rotation=rotation)
    photo = read_video(path, long_side=56, frames=1).photos[0]
    assert photo.original_size == ((64, 48) if rotation in (90, -90) else (48, 64))
    # Turning counterclockwise, the top left corner goes to the bottom left first.
    corner = {0: (4, 4), 90: (-5, 4), 180: (-5, -5), -90: (4, -5)}[rotation]
    assert photo.image[0][corner] > 200
    assert photo.image[0][tuple(-1 - c for c in corner)] < 40


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3, aspect=Fraction(2, 1))
    photo = read_video(path, long_side=112, frames=1).photos[0]
    assert (photo.original_size, photo.size) == ((48, 128), (42, 112))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 1.0, "frames": 3}, "--every and --frames must not be given together"),
        ({"every": 0.0}, "--every must be seconds above 0, got 0.0"),
        ({"every": float("nan")}, "--every must be"),
        ({"frames": 0}, "--frames must be at least 1, got 0"),
        ({"long_side": 3}, "--long-side must be at least 14"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    with pytest.raises(UsageError, match=message):
        read_video(path, **{"long_side": 56, **options})


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # Its index was at the end.
    (tmp_path / "folder.mp4").mkdir()
    for name in ("text.mp4", "empty.mp4", "cut.mp4", "folder.mp4"):
        with pytest.raises(DataError, match=f"video '.*{name}' must hold frames, got "):
            read_video(tmp_path / name, long_side=56)
    with pytest.raises(DataError, match=r"did you mean '.*whole\.mp4'"):
        read_video(tmp_path / "whoel.mp4", long_side=56)


def test_a_sound_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(DataError, match="must hold frames, got no video stream"):
        read_video(path, long_side=56)


def test_a_stream_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(DataError, match="must hold frames, got "):
        read_video(path, long_side=56)


def test_a_torn_video_gives_what_it_has(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "torn.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    found = read_video(tmp_path / "torn.mkv", long_side=56, every=0.1)
    assert 5 < len(found) < 20


def test_a_damaged_stretch_is_told_and_strict_stops(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 60] = b"\xff" * 60
    path.write_bytes(data)
    found = read_video(path, long_side=56, every=0.1)
    assert 20 < len(found) <= 30
    assert len(found.skipped) == 1 and "left out" in found.skipped[0][1]
    with pytest.raises(DataError, match=r"video '.*a\.mp4' must be whole, got "):
        read_video(path, long_side=56, every=0.1, strict=True)


def test_frames_too_small(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3, size=(8, 64))
    with pytest.raises(DataError, match="8×64, less than 14 on a side"):
        read_video(path, long_side=56)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError):
        importlib.import_module("av")
    with pytest.raises(UsageError, match=r"pip install 'vggt3\[video\]'"):
        read_views(path, long_side=56)


def test_the_one_door_opens_for_both(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert len(read_views([path], long_side=56, frames=4)) == 4


def test_a_video_that_was_cut_off_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 60)
    torn = tmp_path / "torn.mkv"
    torn.write_bytes(whole.read_bytes()[: len(whole.read_bytes()) // 2])
    assert read_video(whole, long_side=56).skipped == ()
    (path, reason), *_ = read_video(torn, long_side=56).skipped
    assert path == torn
    assert "it ends after" in reason
    with pytest.raises(DataError, match="must be whole"):
        read_video(torn, long_side=56, strict=True)
