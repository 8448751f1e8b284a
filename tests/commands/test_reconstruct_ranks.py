"""``torchrun -m vggt3 reconstruct``: one scene by several processes, whole or not at all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.commands.test_reconstruct import FILES, TINY, photo
from tests.training.processes import apart, free_port

from vggt3 import cli
from vggt3.io.export.ply import read_cloud
from vggt3.io.scene_writer import SceneWriter
from vggt3.types import DenseView


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos of two sizes, and two that cannot be read."""
    for n in range(5):
        photo(tmp_path / "photos" / f"{n}.jpg", [(80, 60), (60, 80)][n % 2], n)
    (tmp_path / "photos" / "3 not.jpg").write_text("no photo")
    (tmp_path / "photos" / "9 not.jpg").write_text("no photo")
    return tmp_path / "photos"


def typed(folder: Path, words: tuple[object, ...], prepare: Callable[[int], None] | None) -> None:
    """The command on one rank: what it says goes into a file."""
    rank = int(os.environ["RANK"])
    os.chdir(folder)
    said = (folder / f"said-{rank}").open("a")
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))
    if prepare is not None:
        prepare(rank)
    sys.exit(cli.main(["reconstruct", *map(str, words)]))


def run(
    folder: Path, size: int, *words: object, prepare: Callable[[int], None] | None = None
) -> tuple[list[int | None], list[str]]:
    """Exit code of each rank, and what it said."""
    codes = apart(size, typed, folder, words, prepare)
    said = [folder / f"said-{rank}" for rank in range(size)]
    texts = [path.read_text() for path in said]
    for path in said:
        path.unlink()
    return codes, texts


def test_files_are_those_of_one_process(photos: Path, tmp_path: Path) -> None:
    one, many = tmp_path / "one" / "out", tmp_path / "many" / "out"
    assert cli.main(["reconstruct", str(photos), "-o", str(one), *TINY]) == 0
    codes, said = run(tmp_path, 3, photos, "-o", many, *TINY)
    assert codes == [0] * 3
    assert said[1:] == [""] * 2  # the first speaks for all
    assert re.search(r"processes +│ 3 ", said[0])
    assert "skipped 2 files: 3 not.jpg (not a picture" in said[0]
    assert sorted(path.name for path in many.iterdir()) == FILES
    with np.load(one / "scene.npz") as a, np.load(many / "scene.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-4, atol=1e-5)
    assert (one / "scene.npz").stat().st_size == (many / "scene.npz").stat().st_size
    clouds = [read_cloud(folder / "points.ply") for folder in (one, many)]
    assert abs(len(clouds[0][0]) - len(clouds[1][0])) <= 2  # one may be at the percentile itself
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one", "photos"]


def dies(rank: int) -> None:
    at_first_view(rank, lambda: os.kill(os.getpid(), signal.SIGKILL))


def has_no_room(rank: int) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    at_first_view(rank, full)


def at_first_view(rank: int, act: Callable[[], None]) -> None:
    """Let it happen to the second process when it has a view to write."""
    add = SceneWriter.add

    def watched(self: SceneWriter, view: DenseView) -> None:
        if rank == 1:
            act()
        add(self, view)

    SceneWriter.add = watched  # type: ignore[method-assign]


ALL_STAY = "vggt3: rank 1 of 3 must stay until all have done, got "


@pytest.mark.parametrize(
    ("prepare", "code", "told"),
    [
        (dies, -signal.SIGKILL, "the end of its process"),
        (has_no_room, 1, "OSError: [Errno 28] No space left on device: 'out (nothing was kept)'"),
    ],
)
def test_where_one_is_lost_all_stop_and_nothing_is_left(
    photos: Path, tmp_path: Path, prepare: Callable[[int], None], code: int, told: str
) -> None:
    codes, said = run(tmp_path, 3, photos, "-o", "out", *TINY, prepare=prepare)
    assert codes == [1, code, 1]
    for rank in (0, 2):
        assert said[rank].strip().startswith(ALL_STAY + told), said[rank]
    if prepare is has_no_room:
        assert said[1].strip() == "vggt3: out (nothing was kept): No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


BAD = [
    (("NOWHERE", "-o", "out"), 1, "NOWHERE"),
    (("photos", "-o", "photos/0.jpg"), 2, "be a folder, got a file"),
    (("photos", "-o", "out", "--memory", "1M"), 1, "for 6 views in 2 processes must fit 1.0 MiB"),
    (("photos", "-o", "out", "--every", "1"), 2, "--every must be given with a video"),
    (("photos", "-o", "out", "--strict"), 1, "photo '"),
]


def test_bad_input_is_told_once(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "5.jpg").write_bytes(photos.joinpath("0.jpg").read_bytes())
    for words, code, message in BAD:
        codes, said = run(tmp_path, 2, *words, *TINY)
        assert codes == [code] * 2, (words, said)
        assert message in said[0] + said[1], (words, said)
        assert "".join(said).count("vggt3: ") <= (2 if "--strict" in words else 1), said
        assert [path.name for path in tmp_path.iterdir()] == ["photos"], words


def test_the_plan_is_told_once(photos: Path, tmp_path: Path) -> None:
    codes, said = run(tmp_path, 2, photos, "--plan", *TINY)
    assert codes == [0, 0] and said[1] == ""
    assert re.search(r"views +│ 5 in 2 processes, 3 in the neediest ", said[0])


def test_as_typed(photos: Path, tmp_path: Path) -> None:
    """torchrun itself, with more processes than photos."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words += ["--master-port", str(free_port()), "-m", "vggt3", "reconstruct"]
    given = [str(photos / "0.jpg"), "-o", "out", "--attention", "softmax", *TINY]
    done = subprocess.run([*words, *given], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"views +│ 1 \(56×42\)", done.stdout)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
