"""A question's kernels, recorded once for each shape of a chunk and then replayed (CUDA graphs).

A question about one photo is more than a thousand short kernels, whose launches take longer than
they do. A recording is launched at once. What is recorded is the function that is called otherwise;
there is no second way through the model.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

Found = dict[str, Tensor]
"""What a chunk's images [1, V_c, 3, H, W] give, by name."""
Function = Callable[[Tensor], Found]

PHOTOS = 4
"""Most photos of a chunk that is recorded. On an H100 a photo of 392×518 is 80 ms of launches and
under 10 ms of kernels: from 8 photos on the launches hide behind the kernels."""
RECORDINGS = 4
"""Most recordings of one recorder."""
IDLE = 64
"""Questions of small chunks after which a recording that none of them wanted makes way: photos of
more shapes than there are recordings, in turn, must not be recorded again and again."""
MET = 64
"""Shapes that are remembered as asked about once."""
WARM_UPS = 2
"""Runs before a recording: what this thread and this stream make at first use is there by then."""

_ONE_AT_A_TIME = threading.Lock()
"""A recording begins by waiting for the whole device, which another one forbids meanwhile."""


class Recording(Protocol):
    """One shape's kernels."""

    def played(self, images: Tensor) -> AbstractContextManager[Found]:
        """Replay them for ``images``; what they give holds within the block, on its stream."""


Record = Callable[[Function, Tensor], Recording]
"""Makes a recording of a function of images such as these; RuntimeError where it cannot."""


class Recorder:
    """Calls a function of images, or replays what it did: from the second chunk of a shape on.

    Any number of threads may. Recordings are few, and together within ``room``.
    """

    def __init__(self, room: int, record: Record | None) -> None:
        """Recordings of at most ``room`` bytes in all, made by ``record``; none without one."""
        self.room, self.record = room, record
        self.kept: OrderedDict[object, tuple[Recording, int]] = OrderedDict()
        """Recordings and their bytes by shape, the one that was wanted last at the end."""
        self._wanted: dict[object, int] = {}
        self._met: OrderedDict[object, None] = OrderedDict()
        self._asked = 0
        self._lock = threading.Lock()

    @contextmanager
    def found(self, function: Function, images: Tensor, nbytes: int) -> Iterator[Found]:
        """What ``function`` gives for ``images``, for use within the block on its stream.

        A recording of it takes ``nbytes``. What is given must not outlive the block: the next
        question overwrites it.
        """
        if self.record is not None and images.shape[1] <= PHOTOS:
            # Held until the results have been sent off, so that no thread gets another's.
            with self._lock:
                recording = self._recording(function, images, nbytes)
                if recording is not None:
                    with recording.played(images) as found:
                        yield found
                    return
        yield function(images)

    def clear(self) -> None:
        """Drop all recordings."""
        with self._lock:
            self.kept.clear()
            self._wanted.clear()

    def _recording(self, function: Function, images: Tensor, nbytes: int) -> Recording | None:
        """The recording for these images, made now if they are the second of their shape."""
        key = (images.shape, images.dtype)
        self._asked += 1
        if key in self.kept:
            self.kept.move_to_end(key)
            self._wanted[key] = self._asked
            return self.kept[key][0]
        if key not in self._met:
            self._met[key] = None
            if len(self._met) > MET:
                self._met.popitem(last=False)
            return None
        if self.record is None or not self._make_room(nbytes):
            return None
        try:
            made = self.record(function, images)
        except RuntimeError as error:  # CUDA's and the allocator's are among them
            self.record = None
            told = str(_first(error)).partition("\n")[0]
            warnings.warn(
                f"photos are localised kernel by kernel, no further shape is recorded: {told}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        self.kept[key], self._wanted[key] = (made, nbytes), self._asked
        return made

    def _make_room(self, nbytes: int) -> bool:
        """Drop what has been idle, as far as needed; whether a recording of ``nbytes`` fits."""

        def full() -> bool:
            taken = sum(each for _, each in self.kept.values())
            return len(self.kept) >= RECORDINGS or taken + nbytes > self.room

        while full() and self.kept:
            oldest = next(iter(self.kept))
            if self._asked - self._wanted[oldest] <= IDLE:
                return False
            del self.kept[oldest], self._wanted[oldest]
        return not full()


class Graphs:
    """Makes recordings on one CUDA device.

    They share the memory of what lies between their inputs and results, and cuBLAS's work space
    of the stream: so all of them play on that stream, one after the other.
    """

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self.stream = torch.cuda.Stream(device)
            self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Function, images: Tensor) -> Recording:
        """Warm up, record, and hold the replay to what the kernels themselves gave, bit for bit.

        Raises:
            RuntimeError: something on the way cannot be recorded, or the replay differs.
        """
        current = torch.cuda.current_stream(self.stream.device)
        with _ONE_AT_A_TIME, torch.cuda.stream(self.stream):
            self.stream.wait_stream(current)
            given = images.to(self.stream.device, copy=True)
            for _ in range(WARM_UPS):
                wanted = function(given)
            graph = torch.cuda.CUDAGraph()
            with (
                _random_numbers_kept(self.stream.device),
                torch.cuda.graph(
                    graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
                ),
            ):
                found = function(given)
            graph.replay()
            for name, x in found.items():
                if not _same(x, wanted[name]):
                    raise RuntimeError(f"a replay gives another {name} than its kernels")
        return _Graph(self.stream, graph, given, found)


class _Graph:
    """A recording on a CUDA device."""

    def __init__(
        self, stream: torch.cuda.Stream, graph: torch.cuda.CUDAGraph, given: Tensor, found: Found
    ) -> None:
        self.stream, self.graph, self.given, self.found = stream, graph, given, found

    @contextmanager
    def played(self, images: Tensor) -> Iterator[Found]:
        current = torch.cuda.current_stream(self.stream.device)
        with torch.cuda.stream(self.stream):
            self.stream.wait_stream(current)
            self.given.copy_(_sendable(images), non_blocking=True)
            # The caller may write to its images or free them, in its own stream's order.
            current.wait_event(self.stream.record_event())
            self.graph.replay()
            yield self.found


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    """A recording that fails leaves the device's generator in the recording, where nobody can
    draw any more: it is given its state from before."""
    generator = torch.cuda.default_generators[device.index]
    before = generator.clone_state()
    try:
        yield
    except RuntimeError:
        generator.graphsafe_set_state(before)
        raise


def _sendable(images: Tensor) -> Tensor:
    """The images, if they lie on the host in page-locked memory of their own: sending them then
    waits neither for the device nor for the caller to leave them as they are."""
    if images.device.type != "cpu":
        return images
    return torch.empty(images.shape, dtype=images.dtype, pin_memory=True).copy_(images)


def _first(error: BaseException) -> BaseException:
    """Where it began: ending a recording that has failed fails again, with less to say."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _same(x: Tensor, y: Tensor) -> bool:
    return bool(((x == y) | (x.isnan() & y.isnan())).all())
