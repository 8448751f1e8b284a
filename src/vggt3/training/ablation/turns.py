"""Trainings that take turns on a device, beside processes that score."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

if sys.platform != "win32":
    import fcntl


@contextmanager
def turn(device: torch.device) -> Iterator[None]:
    """Wait until no other process of this user's and this machine's has its turn on the device.

    A process that dies gives it back. Nobody waits on Windows.
    """
    if sys.platform == "win32":
        yield
        return
    with (Path(tempfile.gettempdir()) / f"vggt3-{_named(device)}.turn").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield
        finally:  # what it has forked (workers that draw, or compile) holds the file open too
            fcntl.flock(held, fcntl.LOCK_UN)


def _named(device: torch.device) -> str:
    """User and device, whichever number the process knows it by, as a part of a file's name."""
    which = str(device)
    if device.type == "cuda":
        known = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        which = str(known or f"{os.environ.get('CUDA_VISIBLE_DEVICES', '')} {device}")
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{os.getuid()} {which}")
