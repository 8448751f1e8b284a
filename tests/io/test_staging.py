"""An output folder that appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vggt3 import files
from vggt3.checks import DataError, UsageError
from vggt3.inference.scene_memory import check_scene_path
from vggt3.io import check_out, staged, staging
from vggt3.io.staging import check_file, check_writable, staged_file
from vggt3.model import weight_files


def scene(folder: Path, word: str, pose_kind: str = "estimated") -> Path:
    folder.mkdir(parents=True)
    (folder / "cameras.json").write_text(json.dumps({"pose_kind": pose_kind}))
    (folder / "points.ply").write_text(word)
    return folder


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deeper" / "out"
    with staged(out) as folder:
        assert folder.name == "out" and not out.exists()
        (folder / "file").write_text("done")
    assert (out / "file").read_text() == "done"
    assert content(out.parent) == ["out"]
    assert (out.stat().st_mode & 0o777) == (out.parent.stat().st_mode & 0o777)


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError, SystemExit])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged(tmp_path / "new" / "out") as folder:
        (folder / "half").write_text("written")
        raise error("stop")
    assert content(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_a_failure_leaves_the_old_scene(tmp_path: Path, error: type[BaseException]) -> None:
    out = scene(tmp_path / "out", "old")
    with pytest.raises(error), staged(out, overwrite=True) as folder:
        (folder / "cameras.json").write_text("{}")
        raise error("stop")
    assert (out / "points.ply").read_text() == "old"
    assert content(tmp_path) == ["out"]


def test_overwriting_replaces_all_of_it(tmp_path: Path) -> None:
    out = scene(tmp_path / "out", "old")
    with staged(out, overwrite=True) as folder:
        assert (out / "points.ply").read_text() == "old"
        (folder / "new").write_text("new")
    assert content(out) == ["new"] and content(tmp_path) == ["out"]


def test_an_existing_out_is_refused_at_once(tmp_path: Path) -> None:
    out = scene(tmp_path / "out", "old")
    with pytest.raises(UsageError, match=r"not exist yet .*--overwrite"), staged(out):
        raise AssertionError("the block must not start")
    assert content(tmp_path) == ["out"]


def test_only_scenes_are_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    check_out(other, overwrite=True)
    (other / "thesis.doc").write_text("years of work")
    with pytest.raises(UsageError, match=r"other things \(no cameras.json\)"):
        check_out(other, overwrite=True)
    capture = scene(tmp_path / "capture", "photos", "ground_truth")
    with pytest.raises(UsageError, match="a capture with poses of kind 'ground_truth'"):
        check_out(capture, overwrite=True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="must be a folder, got a file"):
        check_out(file, overwrite=True)


def test_the_photos_being_read_are_not_overwritten(tmp_path: Path) -> None:
    out = scene(tmp_path / "out", "old")
    (out / "photo.jpg").write_text("")
    with pytest.raises(UsageError, match="with the photos themselves"):
        check_out(out, overwrite=True, keep=[out / "photo.jpg"])


def test_the_current_folder_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = scene(tmp_path / "out", "old")
    monkeypatch.chdir(out)
    with pytest.raises(UsageError, match="got the current folder"):
        check_out(".", overwrite=True)


def test_a_link_is_followed(tmp_path: Path) -> None:
    real = scene(tmp_path / "elsewhere" / "real", "old")
    (tmp_path / "out").symlink_to(real)
    with staged(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("")
    assert (tmp_path / "out").is_symlink() and content(real) == ["new"]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a folder that can be written, got a file"):
        check_out(tmp_path / "file" / "out")


def test_a_read_only_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the answer of the system is put in its mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="can be written, got a read-only folder"):
        check_out(tmp_path / "out")


@pytest.mark.parametrize("out", ["out", "new/out"])
def test_a_file_system_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="got Read-only file system"), staged(tmp_path / out):
        pass


def test_what_somebody_puts_into_the_hidden_folder_is_no_error(tmp_path: Path) -> None:
    with staged(tmp_path / "out") as folder:
        (folder.parent / ".nfs0001").write_text("")
    assert content(tmp_path) == ["out"]


@pytest.mark.parametrize("length", [252, 225])
def test_names_that_are_too_long_for_hidden_ones_are_refused_at_once(
    tmp_path: Path, length: int
) -> None:
    most = os.pathconf(tmp_path, "PC_NAME_MAX")
    name = "n" * (most - 255 + length)
    told = r"have a shorter name \(hidden ones beside it are longer\), got File name too long"
    fits = length + len(files.name_beside(Path("n"), files.SHELTER).name) - 1 <= 255
    for place in (tmp_path / name, tmp_path / "new" / name):
        if fits:
            check_out(place)
        else:
            with pytest.raises(UsageError, match=told):
                check_out(place)
            with pytest.raises(UsageError, match=told):
                check_file(place, False, b"glTF")
    (tmp_path / ("m" * most)).write_text("")
    for new in (tmp_path / ("n" * (most - 11)), tmp_path / ("m" * most)):
        with pytest.raises(UsageError, match=told):
            check_writable(new, "OUT")
    check_writable(tmp_path / ("n" * (most - 12)), "OUT")


def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to("real/a.txt")
    for word in ("new", "newer"):
        with files.replacing(tmp_path / "link.txt") as beside:
            beside.write_text(word)
        weight_files.put(tmp_path / "link.vggt3", {"x": torch.zeros(1)}, {"word": word})
        if word == "new":
            (tmp_path / "link.vggt3").rename(tmp_path / "real" / "a.vggt3")
            (tmp_path / "link.vggt3").symlink_to("real/a.vggt3")
    assert (tmp_path / "real" / "a.txt").read_text() == "newer"
    assert content(tmp_path / "real") == ["a.txt", "a.vggt3"]
    assert all((tmp_path / name).is_symlink() for name in ("link.txt", "link.vggt3"))
    with safe_open(tmp_path / "real" / "a.vggt3", "pt") as opened:
        assert opened.metadata()["word"] == "newer"
    assert check_scene_path(tmp_path / "link.new", False) == tmp_path / "link.new"
    (tmp_path / "link.new").symlink_to(tmp_path / "real" / "b.vggt3")
    assert check_scene_path(tmp_path / "link.new", False) == tmp_path / "real" / "b.vggt3"


def test_a_trial_is_nobody_elses_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / ".t.other.json"
    other.write_text("mine")
    monkeypatch.setattr(staging, "name_file_beside", lambda place: other)
    with pytest.raises(UsageError, match="File exists"):
        check_writable(tmp_path / "t.json", "OUT")
    assert other.read_text() == "mine"


def test_a_full_disk_names_out(tmp_path: Path) -> None:
    told = r"No space left.*out \(nothing was kept\)"
    with pytest.raises(OSError, match=told), staged(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"^broken data stream$"), staged(tmp_path / "out"):
        raise OSError("broken data stream")
    assert content(tmp_path) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "a.glb"
    with staged_file(place, False, b"glTF") as path:
        path.write_bytes(b"glTF 1")
    with pytest.raises(UsageError, match="not exist yet"), staged_file(place, False, b"glTF"):
        pass
    with pytest.raises(KeyboardInterrupt), staged_file(place, True, b"glTF") as path:
        path.write_bytes(b"glTF half")
        raise KeyboardInterrupt
    assert [p.name for p in place.parent.iterdir()] == ["a.glb"]
    assert place.read_bytes() == b"glTF 1"
    with staged_file(place, True, b"glTF") as path:
        path.write_bytes(b"glTF 2")
    assert place.read_bytes() == b"glTF 2"


def test_a_failed_file_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), staged_file(tmp_path / "b/c.glb", False, b"glTF"):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_or_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "a.glb"
    place.write_bytes(b"a letter")
    with pytest.raises(UsageError, match="file of another kind"), staged_file(place, True, b"glTF"):
        pass
    late = tmp_path / "late.glb"
    for overwrite in (False, True):
        late.unlink(missing_ok=True)
        with (
            pytest.raises(UsageError, match=r"late.glb', at the end, must .* what was made is"),
            staged_file(late, overwrite, b"glTF") as path,
        ):
            path.write_bytes(b"glTF")
            late.write_bytes(b"another")
        assert late.read_bytes() == b"another"
        (kept,) = tmp_path.glob(".late.glb.kept-*")
        assert (kept / "late.glb").read_bytes() == b"glTF"
        shutil.rmtree(kept)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.glb", "late.glb"]


def test_a_file_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    there = tmp_path / "there.txt"
    there.write_text("mine")
    for path in (there, tmp_path / "new.txt"):
        check_writable(path, "OUT")
    assert there.read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["there.txt"]
    with pytest.raises(
        UsageError, match="OUT must be in a folder that can be written, got '/proc'"
    ):
        check_writable(Path("/proc/new.txt"), "OUT")
    for folder in (tmp_path, Path("/")):
        with pytest.raises(UsageError, match="OUT must be a file that can be written, got "):
            check_writable(folder, "OUT")
    (tmp_path / "link.txt").symlink_to("new.txt")
    for path in (tmp_path / "link.txt", Path("/dev/null"), Path(f"/proc/self/fd/{os.pipe()[1]}")):
        check_writable(path, "OUT")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.txt", "there.txt"]
