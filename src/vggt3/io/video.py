"""Reading a video as photos, through PyAV (the ``video`` extra)."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vggt3 import checks
from vggt3.io.photo_set import Photo, PhotoSet, Progress
from vggt3.io.resize import SMALLEST_SIDE, checked_long_side, model_size, resized
from vggt3.io.sources import existing
from vggt3.types import PATCH

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

WHOLE = 0.9
"""A video that ends before this share of what its header promises (and a second) was cut off."""
SECONDS_BETWEEN_FRAMES = 0.5
"""Taken where neither ``every`` nor ``frames`` is given."""


def read_video(
    path: str | Path,
    *,
    long_side: int,
    every: float | None = None,
    frames: int | None = None,
    patch: int = PATCH,
    strict: bool = False,
    progress: Progress | None = None,
) -> PhotoSet:
    """Read frames of a video, upright and resized as photos are.

    ``every`` takes a frame each so many seconds by the video's own clock, ``frames`` takes that
    many evenly spaced from the first to the last (all of them where there are fewer); neither
    means every half second. Frames are named ``frame_000012`` by their place in the video; their
    original size is the size at which the video is meant to be shown. Damaged stretches are
    listed in ``skipped``, or raise DataError with ``strict``, as does a video without frames.
    """
    checked_long_side(long_side, patch)
    _check_choice(every, frames)
    place = existing(path, "video")
    damage = _Damage(place, strict)
    with _opened(place) as (container, stream):
        promised = _promised_seconds(container, stream)
        times = _packet_times(container, stream)
        wanted = _wanted_times(times, every, frames)
    if times and times[-1] - times[0] < promised * WHOLE - 1:
        damage.note(f"it ends after {times[-1] - times[0]:.1f} s of {promised:.1f} s")
    photos: list[Photo] = []
    with _opened(place) as (container, stream):
        fit = _Fit(long_side, patch, float(stream.sample_aspect_ratio or 1))
        for number, frame in _picked(_frames(container, stream, damage), wanted):
            photos.append(_photo(frame, number, place, fit))
            if progress is not None:
                progress(len(photos), max(len(wanted), len(photos)))
    if not photos:
        _fail_without_frames(place, "none that can be decoded")
    return PhotoSet(tuple(photos), damage.skipped())


def frame_name(number: int) -> str:
    """What the frame at a place in its video is called, counted from 0."""
    return f"frame_{number:06d}"


def video_frames(path: str | Path, numbers: Collection[int]) -> Iterator[tuple[int, Image.Image]]:
    """Frames by their places in the video, each with its place, as large as they are shown.

    They come in the video's order, upright and with square pixels; frames that the video does
    not have, or that are damaged, do not come.
    """
    place = existing(path, "video")
    left = set(numbers)
    with _opened(place) as (container, stream):
        aspect = float(stream.sample_aspect_ratio or 1)
        frames = _frames(container, stream, _Damage(place, strict=False))
        for _, number, frame in frames:
            if number in left:
                image = frame.to_image()
                height, width = _shown_size(image, aspect)
                if (height, width) != (image.height, image.width):
                    image = resized(image, (height, width))
                yield number, Image.fromarray(_turned(image, frame))
                left.discard(number)
            if not left:
                return


class _Fit(NamedTuple):
    """How a frame becomes a photo: the model's size, and how wide a pixel is for its height."""

    long_side: int
    patch: int
    pixel_aspect: float


class _Damage:
    """Counts what could not be decoded; stops at once if ``strict``."""

    def __init__(self, path: Path, strict: bool) -> None:
        self.path = path
        self.strict = strict
        self.count = 0
        self.last = ""

    def note(self, what: str) -> None:
        self.count += 1
        self.last = what
        if self.strict:
            checks.fail(f"video '{self.path}'", "be whole", self.last, error=checks.DataError)

    def skipped(self) -> tuple[tuple[Path, str], ...]:
        if not self.count:
            return ()
        parts = "1 damaged part" if self.count == 1 else f"{self.count} damaged parts"
        return ((self.path, f"{parts} left out: {self.last}"),)


def _check_choice(every: float | None, frames: int | None) -> None:
    if every is not None and frames is not None:
        checks.fail("--every and --frames", "not be given together", f"{every} and {frames}")
    if every is not None:
        checks.require(0 < every < float("inf"), "--every", "be seconds above 0", every)
    if frames is not None:
        checks.require(frames >= 1, "--frames", "be at least 1", frames)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its main video stream; DataError where there is none."""
    av = _av()
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        _fail_without_frames(path, _reason(error))
    with container:
        stream = container.streams.best("video")
        if stream is None:
            _fail_without_frames(path, "no video stream")
        stream.thread_type = "AUTO"
        yield container, stream


def _av() -> ModuleType:
    try:
        return importlib.import_module("av")
    except ImportError:
        checks.fail(
            "a video", "be read through PyAV (pip install 'vggt3[video]')", "no module 'av'"
        )


def _promised_seconds(container: InputContainer, stream: VideoStream) -> float:
    """How long the header says the pictures last; 0 where it does not say."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1e6  # a sound track could be longer than the pictures
    return 0.0


def _packet_times(container: InputContainer, stream: VideoStream) -> list[float]:
    """Seconds at which frames are shown, sorted; from the packets alone, nothing decoded."""
    av = _av()
    times: list[float] = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                times.append(_seconds(packet.pts, packet.time_base, len(times), stream))
    except av.error.FFmpegError:
        pass  # A torn end: the frames before it count, and decoding will report it.
    return sorted(times)


def _seconds(
    pts: int | None, time_base: Fraction | None, number: int, stream: VideoStream
) -> float:
    """When a frame is shown; streams without a clock (raw H.264) count by their frame rate."""
    if pts is not None and time_base is not None:
        return float(pts * time_base)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return float(number / rate)


def _wanted_times(times: list[float], every: float | None, frames: int | None) -> list[float]:
    """The times to take, ascending, out of the sorted ``times`` of all frames."""
    if not times:
        return []
    first, last = times[0], times[-1]
    if frames is None:
        step = SECONDS_BETWEEN_FRAMES if every is None else every
        # The hair keeps a video of exactly 2 s at 0.5 s from losing its last frame to rounding.
        count = int((last - first) / step + 1e-6) + 1
        return [first + step * k for k in range(count)]
    if frames >= len(times):
        return times
    targets = np.linspace(first, last, frames)
    known = np.asarray(times)
    after = np.clip(np.searchsorted(known, targets), 1, len(known) - 1)
    nearer = np.where(targets - known[after - 1] <= known[after] - targets, after - 1, after)
    return [float(time) for time in known[np.unique(nearer)]]


def _frames(
    container: InputContainer, stream: VideoStream, damage: _Damage
) -> Iterator[tuple[float, int, VideoFrame]]:
    """Seconds at which it is shown, place in the video and frame; damage is noted."""
    av = _av()
    number = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except av.error.FFmpegError as error:
            damage.note(_reason(error))
            continue
        if packet is None:
            return
        for frame in frames:
            if frame.is_corrupt:
                damage.note(f"frame {number} is corrupt")
            else:
                yield _seconds(frame.pts, frame.time_base, number, stream), number, frame
            number += 1


def _picked(
    frames: Iterator[tuple[float, int, VideoFrame]], wanted: list[float]
) -> Iterator[tuple[int, VideoFrame]]:
    """The first frame at or after each wanted time, once each, with its place in the video."""
    tolerance = 1e-3
    place = 0
    last: tuple[int, VideoFrame] | None = None
    for time, number, frame in frames:
        last = (number, frame)
        if place < len(wanted) and time >= wanted[place] - tolerance:
            while place < len(wanted) and time >= wanted[place] - tolerance:
                place += 1
            last = None
            yield number, frame
    if last is not None and place < len(wanted):
        yield last  # Packets promised a later frame than could be decoded.


def _photo(frame: VideoFrame, number: int, path: Path, fit: _Fit) -> Photo:
    """``frame`` upright, with square pixels, at the model's size."""
    image: Image.Image = frame.to_image()
    height, width = _shown_size(image, fit.pixel_aspect)
    if min(height, width) < SMALLEST_SIDE:
        _fail_without_frames(path, f"{height}×{width}, less than {SMALLEST_SIDE} on a side")
    small = resized(image, model_size((height, width), fit.long_side, fit.patch))
    pixels = _turned(small, frame)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    size = (width, height) if _quarters(frame) % 2 else (height, width)
    return Photo(frame_name(number), tensor, size, path)


def _shown_size(image: Image.Image, pixel_aspect: float) -> tuple[int, int]:
    """(height, width) with square pixels, not yet turned."""
    return image.height, max(1, round(image.width * pixel_aspect))


def _quarters(frame: VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


def _turned(image: Image.Image, frame: VideoFrame) -> NDArray[np.uint8]:
    """[h, w, 3] upright; counterclockwise, as av counts."""
    return np.array(np.rot90(np.asarray(image), _quarters(frame)))


def _fail_without_frames(path: Path, got: str) -> NoReturn:
    checks.fail(f"video '{path}'", "hold frames", got, error=checks.DataError)


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error)
