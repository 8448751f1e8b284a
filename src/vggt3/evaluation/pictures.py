"""The exam's scenes as they are needed: rendered, in other processes if asked, and kept."""

from __future__ import annotations

import os
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vggt3 import checks
from vggt3.data.procedural.render import Renderer
from vggt3.evaluation.picture_options import PictureOptions
from vggt3.evaluation.rooms import Exam, ExamScene
from vggt3.files import replacing
from vggt3.io.staging import check_folder

MOST_WORKERS = 16
ARRAYS = ("images", "depth", "camera_from_world", "intrinsics")

Task = tuple[str, int]
"""A set's name and a scene's index."""
Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Pictures:
    """Where an exam's pictures come from."""

    exam: Exam
    cache: Path | None = None
    """A folder that keeps rendered scenes: exactly, so that scores do not depend on it."""
    workers: int = 0
    """Processes that render ahead, one thread each."""
    device: str = "cpu"
    renderer: Renderer = "torch"

    @property
    def canonical(self) -> bool:
        """Whether these are the pictures that published scores are of."""
        return self.device == "cpu" and self.renderer == "torch"

    def scene(self, task: Task) -> ExamScene:
        """One scene, from the cache if it is there; a damaged or foreign file is replaced."""
        name, index = task
        if self.cache is None:
            return self.exam.scene(self.exam.choose(name), index, self.device, self.renderer)
        path = self._place(self.cache, task)
        kept = _kept(path, self.exam.digest)
        if kept is not None:
            return _scene(index, kept)
        made = self.exam.scene(self.exam.choose(name), index, self.device, self.renderer)
        _keep(path, self.exam.digest, _arrays(made))
        return made

    def _place(self, cache: Path, task: Task) -> Path:
        return cache / self.exam.name / task[0] / f"{task[1]:06d}.npz"

    def arrays(self, task: Task) -> tuple[int, Arrays]:
        """:meth:`scene` as arrays, which go through a pipe: shared memory may be small."""
        return task[1], _arrays(self.scene(task))

    def each(self, tasks: Sequence[Task]) -> Iterator[ExamScene]:
        """The scenes of ``tasks``, in order, rendered at most two a worker ahead; by this process
        alone where all of them are kept, for to start others takes longer than to read."""
        cache = self.cache
        kept = cache is not None and all(self._place(cache, task).exists() for task in tasks)
        if self.workers == 0 or kept:
            yield from map(self.scene, tasks)
            return
        waiting: deque[Future[tuple[int, Arrays]]] = deque()
        left = iter(tasks)
        with (
            _leaving_cores(self.workers),
            ProcessPoolExecutor(
                self.workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
            ) as pool,
        ):
            try:
                for task in left:
                    waiting.append(pool.submit(self.arrays, task))
                    if len(waiting) >= 2 * self.workers:
                        yield _scene(*waiting.popleft().result())
                while waiting:
                    yield _scene(*waiting.popleft().result())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def pictures_for(
    exam: Exam, options: PictureOptions, device: torch.device, scenes: int
) -> Pictures:
    """The pictures of an exam that a model on ``device`` sits, at most ``scenes`` of them.

    Raises:
        UsageError: options that cannot be on this device, or a cache that cannot be written.
    """
    on_gpu, fast = device.type == "cuda", options.fast_pictures
    checks.require(on_gpu or not fast, "--fast-pictures", "be used with a CUDA device", device)
    if options.cache is not None:
        check_folder(options.cache, "--cache")
    workers = options.workers
    if workers < 0:
        spare = min(MOST_WORKERS, (os.cpu_count() or 1) - 1)
        workers = spare if on_gpu else 0
    return Pictures(
        exam,
        options.cache,
        0 if fast else min(workers, scenes),
        str(device) if fast else "cpu",
        "auto" if fast else "torch",
    )


@contextmanager
def _leaving_cores(workers: int) -> Iterator[None]:
    """This process's own threads are as many as the workers leave cores: threads that wait for
    each other while others have the cores take minutes for what takes a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 1) - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _arrays(scene: ExamScene) -> Arrays:
    return {name: getattr(scene, name).numpy() for name in ARRAYS}


def _scene(index: int, arrays: Arrays) -> ExamScene:
    return ExamScene(index, *(torch.from_numpy(arrays[name]) for name in ARRAYS))


def _kept(path: Path, digest: str) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in (*ARRAYS, "exam")}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return found if str(found.pop("exam")) == digest else None


def _keep(path: Path, digest: str, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        np.savez(beside, exam=np.array(digest), **arrays)  # type: ignore[arg-type]
