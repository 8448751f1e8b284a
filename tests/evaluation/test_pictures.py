"""Where pictures come from changes none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vggt3.evaluation.pictures import ARRAYS, Pictures, Task
from vggt3.evaluation.rooms import Exam, ExamScene, read_exam

EXAM = read_exam()
TASKS: list[Task] = [("v8", EXAM.sets["v8"].scenes[n]) for n in range(3)]


def small() -> Exam:
    """The exam with pictures that take no time."""
    sets = {
        name: replace(s, config=replace(s.config, size=(28, 28), views=2))
        for name, s in EXAM.sets.items()
    }
    return replace(EXAM, sets=sets)


def same(a: ExamScene, b: ExamScene) -> bool:
    return a.index == b.index and all(torch.equal(getattr(a, n), getattr(b, n)) for n in ARRAYS)


def test_cache_and_processes_give_the_same_pictures(tmp_path: Path) -> None:
    plain = list(Pictures(small()).each(TASKS))
    assert [scene.index for scene in plain] == [index for _, index in TASKS]
    threads = torch.get_num_threads()
    filled = list(Pictures(small(), tmp_path, workers=1).each(TASKS))
    assert torch.get_num_threads() == threads
    kept = list(Pictures(small(), tmp_path).each(TASKS))
    for one, two, three in zip(plain, filled, kept, strict=True):
        assert same(one, two) and same(one, three)
    assert len(list((tmp_path / "rooms-v1" / "v8").iterdir())) == 3


def test_the_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures(small(), tmp_path)
    first = pictures.scene(TASKS[0])
    monkeypatch.setattr(Exam, "scene", None)
    assert same(pictures.scene(TASKS[0]), first)


def test_no_process_is_started_for_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = list(Pictures(small(), tmp_path).each(TASKS))
    monkeypatch.setattr("vggt3.evaluation.pictures.ProcessPoolExecutor", None)
    kept = Pictures(small(), tmp_path, workers=2).each(TASKS)
    assert all(same(one, two) for one, two in zip(plain, kept, strict=True))
    (tmp_path / "rooms-v1" / "v8" / f"{TASKS[1][1]:06d}.npz").unlink()
    with pytest.raises(TypeError):
        list(Pictures(small(), tmp_path, workers=2).each(TASKS))


def test_what_cannot_be_used_is_made_again(tmp_path: Path) -> None:
    pictures = Pictures(small(), tmp_path)
    first = pictures.scene(TASKS[0])
    (path,) = tmp_path.rglob("*.npz")
    whole = path.read_bytes()
    for broken in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        assert same(pictures.scene(TASKS[0]), first)
        assert path.read_bytes() == whole
    other = Pictures(replace(small(), digest="another exam"), tmp_path)
    other.scene(TASKS[0])
    with np.load(path) as stored:
        assert str(stored["exam"]) == "another exam"
    assert same(pictures.scene(TASKS[0]), first)


def test_only_the_cpu_is_canonical() -> None:
    assert Pictures(EXAM).canonical
    assert not Pictures(EXAM, renderer="auto").canonical
    assert not Pictures(EXAM, device="cuda:0").canonical
