"""The exam is what its file says, on every machine, and no training ever sees it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vggt3.checks import DataError, UsageError
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.evaluation import rooms
from vggt3.evaluation.rooms import (
    photographed,
    read_exam,
    scene_statistics,
    some_views,
    summarised,
)

EXAM = read_exam()
COUNTS = {"v8": 512, "v24": 512, "v100": 64, "v300": 32, "easy": 64, "hard": 64, "duplicates": 64}
VIEWS = {"v8": 8, "v24": 24, "v100": 100, "v300": 300, "easy": 24, "hard": 24, "duplicates": 24}
MAIN = ("v8", "v24", "v100", "v300")


def test_the_sets() -> None:
    assert EXAM.name == "rooms-v1"
    assert {name: len(s.scenes) for name, s in EXAM.sets.items()} == COUNTS
    assert {name: s.config.views for name, s in EXAM.sets.items()} == VIEWS
    for chosen in EXAM.sets.values():
        assert list(chosen.scenes) == sorted(set(chosen.scenes))
        assert chosen.config.size == (168, 168) and chosen.config.fov_deg == (45, 80)
        assert chosen.config.photos == 0 and chosen.config.overlap is None
    assert EXAM.sets["duplicates"].config.duplicates == 0.9


def test_difficulty_is_what_was_asked_for() -> None:
    for name in MAIN:
        found, accept = EXAM.sets[name].statistics, EXAM.sets[name].accept
        assert found["rotation_deg"] >= 30 and accept.rotation_deg == 30
        assert 0.2 <= found["overlap"] <= 0.5 and accept.overlap == (0.2, 0.5)
        assert found["trivial"] <= 10
    assert EXAM.sets["easy"].accept.overlap[0] == 0.5
    assert EXAM.sets["hard"].accept.overlap[1] == 0.2


@pytest.mark.parametrize("name", EXAM.sets)
def test_pictures_and_depth_are_pinned(name: str) -> None:
    """The renderer's CPU path is canonical: where this fails, rooms-v2 is due."""
    chosen = EXAM.sets[name]
    assert len(chosen.pinned) == 4
    for index, pinned in zip(chosen.scenes, chosen.pinned[:2]):
        found = torch.tensor(rooms.fingerprint(chosen, EXAM.samples, index))
        torch.testing.assert_close(found, torch.tensor(pinned), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", EXAM.sets)
def test_the_scenes_drawn_are_the_accepted_ones(name: str) -> None:
    chosen = EXAM.sets[name]
    last = chosen.scenes[-1]
    assert chosen.accept.holds(scene_statistics(chosen.draw(last)))
    # Those passed over on the way were refused.
    skipped = next(n for n in range(last, 0, -1) if n not in chosen.scenes)
    assert not chosen.accept.holds(scene_statistics(chosen.draw(skipped)))


def test_the_trivial_guess_scores_10_at_most() -> None:
    chosen = EXAM.sets["v8"]
    found = summarised([scene_statistics(chosen.draw(n)) for n in chosen.scenes[:8]])
    assert 0 < found["trivial"] <= 10
    assert found["rotation_deg"] >= 30 and 0.2 <= found["overlap"] <= 0.5


def words(*key: int) -> list[int]:
    """The 32-bit words that NumPy seeds a stream with; zeros at the end do not count."""
    found = []
    for number in key:
        found += [
            number >> shift & 0xFFFFFFFF for shift in range(0, max(1, number.bit_length()), 32)
        ]
    while found and found[-1] == 0:
        found.pop()
    return found


def test_words_are_numpys() -> None:
    """Keys of equal words give equal streams, so unequal words are what must be shown."""
    for one, two in (((5, 3 << 32), (5, 0, 3)), ((7, 0), (7,))):
        assert words(*one) == words(*two)
        states = [np.random.SeedSequence(k).generate_state(4) for k in (one, two)]
        assert np.array_equal(*states)


def test_no_seed_of_training_reaches_the_exam() -> None:
    """Seeds of 64 bits, held-out ones included, and scenes below 2³² make at most four words."""
    seeds = [s.seed for s in EXAM.sets.values()]
    assert len(set(seeds)) == len(seeds)
    largest = words((1 << 64) + 2 * (1 << 40), (1 << 32) - 1)
    assert len(largest) <= 4
    for seed in seeds:
        assert seed >= 1 << rooms.SEED_BITS
        assert len(words(seed, 1)) > 4 and len(words(seed)) > 4


def test_every_setting_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other defaults move no scene. A new knob belongs into LATER, at its neutral value."""
    names = [field.name for field in dataclasses.fields(ProceduralConfig)]
    look = yaml.safe_load(rooms.ROOMS.read_text("utf-8"))["look"]
    assert {*look, "views", *rooms.LATER} == set(names) and not set(look) & set(rooms.LATER)
    other = {"furniture": (1, 2), "fov_deg": (30, 31), "noise": 0.5, "outdoors": 1.0}
    defaults = ProceduralConfig.__init__.__defaults__ or ()
    changed = tuple(other.get(name, value) for name, value in zip(names, defaults, strict=True))
    monkeypatch.setattr(ProceduralConfig.__init__, "__defaults__", changed)
    assert ProceduralConfig().outdoors == 1.0
    again = read_exam()
    assert all(again.sets[name].config == chosen.config for name, chosen in EXAM.sets.items())


def test_photos_are_8_bit_and_repeat() -> None:
    """Whatever the number of threads."""
    chosen = EXAM.sets["v8"]
    shown = some_views(chosen.draw(chosen.scenes[1]), slice(2))
    first = photographed(shown, 1, EXAM.samples)
    assert first.images.dtype == torch.uint8 and first.images.shape == (2, 3, 168, 168)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        again = photographed(shown, 1, EXAM.samples)
    finally:
        torch.set_num_threads(threads)
    assert again.images.equal(first.images) and again.depth.equal(first.depth)
    assert first.camera_from_world[0].allclose(torch.eye(3, 4), atol=1e-6)


def test_a_file_that_is_no_exam(tmp_path: Path) -> None:
    path = tmp_path / "exam.yaml"
    for text in ("", "a: [", "name: x\nsamples: 1\nlook: {}\nsets: {a: {look: {views: 2}}}"):
        path.write_text(text)
        with pytest.raises(DataError, match="must be an exam"):
            read_exam(path)
    with pytest.raises(DataError, match="must be an exam"):
        read_exam(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="did you mean 'v24'"):
        EXAM.choose("v25")
