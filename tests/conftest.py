"""What every test has: quiet memory made loud, fixed seeds, few threads, and the shared data."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Before anything imports triton: its own library is made for one mode or the other.
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        type=Path,
        default=None,
        help="outputs of the reference models (default ../shared/golden, else tests/golden)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """In each process, xdist's workers included.

    Deterministic mode makes torch fill memory that nobody has written yet (``torch.empty`` and
    its kin, in Python and in C++) with NaN, or the largest integer: a read of it shows. A test
    that asks whether a result repeats bit for bit on a GPU must switch the mode off first, or it
    tests torch's deterministic kernels in place of ours.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_workers_left_over() -> Iterator[None]:
    """A loader that was not read to its end goes now, its workers with it.

    Left to the garbage collector it may go while a thread is being started, and joining its own
    threads there waits for a lock of :mod:`threading` that the start holds: for ever.
    """
    yield
    if multiprocessing.active_children():
        gc.collect()


@pytest.fixture(scope="session")
def golden_dir(pytestconfig: pytest.Config) -> Path:
    """The folder of golden files; a folder named on the command line must exist."""
    named: Path | None = pytestconfig.getoption("--golden")
    if named is not None:
        if not named.is_dir():
            pytest.fail(f"--golden must name a folder, got {named}")
        return named
    for folder in (SHARED / "golden", ROOT / "tests" / "golden"):
        if folder.is_dir():
            return folder
    pytest.skip("no golden files: neither ../shared/golden nor tests/golden exists")


@pytest.fixture(scope="session")
def captures_dir() -> Path:
    """Real photo sets; they are not part of the project, so a stranger's clone has none."""
    folder = SHARED / "captures"
    if not folder.is_dir():
        pytest.skip("no photo sets: ../shared/captures does not exist")
    return folder
