"""An output takes its place at the end, whatever others did there meanwhile or left there."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.io.test_staging import content, scene
from vggt3 import files
from vggt3.checks import DataError, UsageError
from vggt3.io import check_out, staged, staging


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.skipif(os.name == "nt", reason="whose a folder is, is not asked there")
def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = files._host()
    thesis = f".out.partial-{host}-3-0123abcd"
    others = [".out.old-1", thesis, ".out.partial-x", ".out.partial-elsewhere-4-01234567"]
    earlier = [f".out.partial-{host}-7", f".out.partial-{host}-7-12"]
    later = [f".out.partial-{host}-1-01234567", f".out.partial-{host}-22-89abcdef"]
    for name in (*later, *earlier, *others):
        (tmp_path / name / "out").mkdir(parents=True)
        (tmp_path / name / "out" / "half").write_text("written")
    (tmp_path / thesis / "thesis").write_text("of somebody's")
    left = content(tmp_path)
    with staged(tmp_path / "out"):  # they are new: their owners may be about to own them
        assert set(left) < set(content(tmp_path))
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(files, "UNOWNED", -1.0)
    with staged(tmp_path / "out"):  # this one is owned
        left = content(tmp_path)
        (own,) = set(left) - set(others)
        assert own.startswith(f".out.partial-{host}-{os.getpid()}-") and set(others) < set(left)
        with pytest.raises(DataError), staged(tmp_path / "out"):
            assert set(left) < set(content(tmp_path))
            raise DataError("enough")


def test_an_out_that_appears_meanwhile_is_kept_and_so_is_the_scene(tmp_path: Path) -> None:
    told = "out', at the end, must not exist yet .*, got an existing folder; what was made is in '"
    with pytest.raises(UsageError, match=told) as error, staged(tmp_path / "out") as folder:
        (folder / "new").write_text("")
        scene(tmp_path / "out", "another's")
    assert (tmp_path / "out" / "points.ply").read_text() == "another's"
    (kept,) = {path for path in tmp_path.iterdir() if path.name != "out"}
    assert content(kept) == ["out"] and content(kept / "out") == ["new"]
    assert str(kept / "out") in str(error.value)


def test_a_failing_last_step_brings_the_old_scene_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = scene(tmp_path / "out", "old")
    monkeypatch.setattr(os, "replace", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt), staged(out, overwrite=True):
        assert content(out) == ["cameras.json", "points.ply"]
    assert (out / "points.ply").read_text() == "old" and content(tmp_path) == ["out"]


def test_what_cannot_take_its_place_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = scene(tmp_path / "out", "old")
    monkeypatch.setattr(os, "replace", raising(OSError(errno.EIO, "Input/output error")))
    with (
        pytest.raises(UsageError, match="be free to be replaced, got Input/output error; what"),
        staged(out, overwrite=True) as folder,
    ):
        (folder / "new").write_text("")
    assert (out / "points.ply").read_text() == "old"
    (kept,) = tmp_path.glob(".out.kept-*/out")
    assert content(kept) == ["new"] and content(kept.parent) == ["out"]
    assert len(content(tmp_path)) == 2


def test_an_old_scene_stays_where_the_new_one_has_vanished(tmp_path: Path) -> None:
    out = scene(tmp_path / "out", "old")
    with pytest.raises(DataError, match="stay until it is whole"), staged(out, True) as folder:
        shutil.rmtree(folder.parent)
    assert (out / "points.ply").read_text() == "old" and content(tmp_path) == ["out"]


def test_an_old_scene_that_cannot_go_back_is_not_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = scene(tmp_path / "out", "old")
    rename = os.rename

    def once(source: Path, target: Path) -> None:
        rename(source, target)
        monkeypatch.setattr(os, "rename", raising(OSError(errno.EIO, "Input/output error")))

    monkeypatch.setattr(os, "rename", once)
    monkeypatch.setattr(os, "replace", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt), staged(out, overwrite=True):
        pass
    (old,) = tmp_path.rglob("points.ply")
    assert old.read_text() == "old"


def killed(place: Path, at: str) -> None:
    """Replace the scene at ``place`` in a process that is killed at a call of the system."""
    child = os.fork()
    if not child:
        with suppress(BaseException), staged(place, overwrite=True) as folder:
            scene(folder / "in", "new")
            setattr(os, at, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="whose a folder is, is not asked there")
def test_killed_between_two_renames_the_old_scene_comes_back(tmp_path: Path) -> None:
    out = scene(tmp_path / "out", "old")
    killed(out, "replace")
    assert not out.exists()
    with pytest.raises(UsageError, match="not exist yet"), staged(out):
        raise AssertionError("the block must not start")
    assert (out / "points.ply").read_text() == "old" and content(tmp_path) == ["out"]
    killed(out, "replace")
    with staged(out, overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert content(out) == ["new"] and content(tmp_path) == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="whose a folder is, is not asked there")
def test_killed_while_the_old_scene_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = scene(tmp_path / "out", "old")
    killed(out, "rmdir")
    assert content(out) == ["in"] and len(content(tmp_path)) == 2
    out.rename(tmp_path / "moved")
    monkeypatch.setattr(files, "UNOWNED", -1.0)
    with staged(out) as folder:  # what is left of the old one does not come back
        (folder / "newer").write_text("")
    assert content(out) == ["newer"] and content(tmp_path) == ["moved", "out"]


def note(out: Path) -> None:
    (out / "thesis.tex").write_text("years of work")


def whole_thesis(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()
    note(out)


def a_file(out: Path) -> None:
    shutil.rmtree(out)
    out.write_text("years of work")


@pytest.mark.parametrize("meanwhile", [note, whole_thesis, a_file])
def test_what_came_to_out_meanwhile_is_not_overwritten(
    tmp_path: Path, meanwhile: Callable[[Path], None]
) -> None:
    out = scene(tmp_path / "out", "old")
    with pytest.raises(UsageError, match="what was made is in"), staged(out, True) as folder:
        (folder / "new").write_text("")
        meanwhile(out)
    thesis = out if out.is_file() else out / "thesis.tex"
    assert thesis.read_text() == "years of work"
    (kept,) = tmp_path.glob(".out.kept-*/out")
    assert content(kept) == ["new"] and len(content(tmp_path)) == 2


def test_another_process_between_the_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def behind(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        scene(tmp_path / "out", "another's")
        replace(source, target)

    for overwrite in (True, False):
        monkeypatch.setattr(os, "replace", behind)
        if overwrite:
            with staged(scene(tmp_path / "out", "old"), overwrite=True) as folder:
                (folder / "new").write_text("")
            assert content(tmp_path / "out") == ["new"] and content(tmp_path) == ["out"]
            shutil.rmtree(tmp_path / "out")
        else:
            with pytest.raises(UsageError, match="what was made"), staged(tmp_path / "out"):
                pass
            assert (tmp_path / "out" / "points.ply").read_text() == "another's"


def test_an_out_that_another_process_is_replacing(tmp_path: Path) -> None:
    out = scene(tmp_path / "out", "old")
    seen = []

    def moved(folder: Path) -> str | None:
        seen.append(folder)
        out.rename(tmp_path / f"away-{len(seen)}")
        if len(seen) == 1:
            scene(out, "another's")
            return "a folder without what had been there"
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(out))

    assert check_out(out, overwrite=True, judge=moved) == out
    assert len(seen) == 2 and not out.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_one_that_comes_behind_the_last_look_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    out = tmp_path / "out"

    @contextmanager
    def behind() -> Iterator[None]:
        if not out.exists():
            out.mkdir()
            note(out)
        yield

    monkeypatch.setattr(staging, "unbroken", behind)
    with pytest.raises(UsageError, match="what was made is in"), staged(out, overwrite):
        pass
    assert content(out) == ["thesis.tex"]


def test_one_out_that_others_change_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = scene(tmp_path / "out", "old")
    monkeypatch.setattr(os, "replace", raising(OSError(errno.ENOTEMPTY, "Directory not empty")))
    with pytest.raises(UsageError, match="got Directory not empty; what"), staged(out, True):
        pass
    assert (out / "points.ply").read_text() == "old"


def test_a_folder_above_that_goes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphans = files._remove_orphans

    def another_fails(place: Path) -> None:
        monkeypatch.setattr(files, "_remove_orphans", orphans)
        place.parent.rmdir()

    monkeypatch.setattr(files, "_remove_orphans", another_fails)
    with staged(tmp_path / "new" / "out") as folder:
        (folder / "file").write_text("")
    assert content(tmp_path / "new") == ["out"]
