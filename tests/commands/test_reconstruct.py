"""``vggt3 reconstruct`` as typed: what it writes, and what bad input gets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggt3 import cli

FILES = ["cameras.json", "points.ply", "preview.png", "scene.npz"]


def photo(path: Path, size: tuple[int, int] = (80, 60), seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos of two sizes."""
    for n, size in enumerate([(80, 60), (60, 80), (80, 60)]):
        photo(tmp_path / "photos" / f"{n}.jpg", size, n)
    return tmp_path / "photos"


def run(*words: object) -> int:
    return cli.main(["reconstruct", *map(str, words)])


TINY = ("--preset", "tiny", "--long-side", "56", "--device", "cpu")


def test_a_folder_of_two_sizes(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert run(photos, "-o", out, *TINY) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    frames = json.loads((out / "cameras.json").read_text())["frames"]
    assert [(f["file"], f["width"], f["height"]) for f in frames] == [
        ("0.jpg", 80, 60),
        ("1.jpg", 60, 80),
        ("2.jpg", 80, 60),
    ]
    with np.load(out / "scene.npz") as scene:
        assert scene["depth/1.jpg"].shape == (56, 42)
        assert scene["points/0.jpg"].shape == (42, 56, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "photos"]


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_write_the_same_scene(photos: Path, tmp_path: Path, chunk: int) -> None:
    assert run(photos, "-o", tmp_path / "a", *TINY) == 0
    assert run(photos, "-o", tmp_path / "b", *TINY, "--chunk", chunk) == 0
    with np.load(tmp_path / "a/scene.npz") as a, np.load(tmp_path / "b/scene.npz") as b:
        for name in a.files:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-4, atol=1e-5)


def test_backends_and_their_options(photos: Path, tmp_path: Path) -> None:
    for n, words in enumerate(
        [
            ("--attention", "softmax", "--attention.max_views", "2"),
            ("--attention", "linear"),
            ("--attention.schedule", "0-1:softmax,2-3:ttt_mlp", "--attention.sweeps", "3"),
        ]
    ):
        assert run(photos, "-o", tmp_path / str(n), *TINY, *words) == 0


def test_the_plan_writes_nothing(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photos, "--plan", *TINY) == 0
    assert "memory: expected" in capsys.readouterr().out


def test_the_plan_reads_headers_alone(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = photo(photos / "large.jpg", (400, 300)).read_bytes()
    (photos / "large.jpg").write_bytes(whole[: len(whole) // 2])
    assert run(photos, "--plan", *TINY) == 0
    assert re.search(r"views +│ 4 ", capsys.readouterr().out)
    assert run(photos, "--plan", *TINY, "--every", "1") == 2
    assert "--every" in capsys.readouterr().err


def test_ways_to_compute_write_the_same_scene(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, "-o", tmp_path / "a", *TINY) == 0
    expected = (tmp_path / "a/scene.npz").read_bytes()
    for n, (words, row) in enumerate(
        [
            (("--features", "replay", "--tokens", "host"), "read again chunk by chunk"),
            (("--features", "projected", "--projections", "again"), "computed again"),
        ]
    ):
        assert run(photos, "--plan", *TINY, *words) == 0
        assert row in capsys.readouterr().out
        assert run(photos, "-o", tmp_path / str(n), *TINY, *words) == 0
        assert (tmp_path / str(n) / "scene.npz").read_bytes() == expected


def test_one_photo_works_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photo(tmp_path / "one.png"), "-o", tmp_path / "out", *TINY) == 0
    assert "scale of its depth is arbitrary" in capsys.readouterr().err


def test_a_panorama_works(tmp_path: Path) -> None:
    assert run(photo(tmp_path / "wide.png", (10000, 20)), "-o", tmp_path / "out", *TINY) == 0
    with np.load(tmp_path / "out/scene.npz") as scene:
        assert scene["depth/wide.png"].shape == (14, 56)


def test_what_cannot_be_read_is_named_and_left_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = photo(photos / "large.jpg", (400, 300)).read_bytes()
    (photos / "large.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "note.jpg").write_text("not a photo")
    photo(photos / "dot.png", (3, 3))
    assert run(photos, "-o", tmp_path / "out", *TINY) == 0
    told = capsys.readouterr().err
    assert "skipped 3 files" in told
    assert all(name in told for name in ("large.jpg", "note.jpg", "dot.png"))
    assert run(photos, "-o", tmp_path / "strict", *TINY, "--strict") == 1
    assert not (tmp_path / "strict").exists()


def test_a_plan_says_what_does_not_open(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "note.jpg").write_text("not a photo")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    assert run(photos, "--plan", *TINY) == 0
    told = capsys.readouterr()
    assert "skipped 2 files: gone.jpg (a link to nothing); note.jpg (not a picture" in told.err
    assert run(photos, "--plan", *TINY, "--strict") == 1
    told = capsys.readouterr()
    assert "gone.jpg' must be usable, got a link to nothing" in told.err
    assert told.out == ""


BAD = [
    (("", "-o", "OUT"), 2, "PHOTOS must be something ('.' is this folder), got ''"),
    (("PHOTOS", "-o", ""), 2, "-o must be something ('.' is this folder), got ''"),
    (("PHOTOS", "--output="), 2, "--output must be something ('.' is this folder), got ''"),
    (("PHOTOS",), 2, "--output must be given"),
    (("PHOTOS", "-o", "OUT", "--attention", "sofmax"), 2, "did you mean 'softmax'"),
    (("PHOTOS", "-o", "OUT", "--attention.sweps", "2"), 2, "did you mean 'sweeps'"),
    (("PHOTOS", "-o", "OUT", "--attention.schedule", "0-9:linear"), 2, "layers in 0..3"),
    (
        ("PHOTOS", "-o", "OUT", "--attention", "softmax", "--attention.schedule", "0-3:linear"),
        2,
        "--attention must be a backend of --attention.schedule (linear), or be left out",
    ),
    (("PHOTOS", "-o", "OUT", "--preset", "tny"), 2, "did you mean 'tiny'"),
    (("PHOTOS", "-o", "OUT", "--device", "cuda:7"), 2, "--device must"),
    (("PHOTOS", "-o", "OUT", "--memory", "1M"), 1, "; give more --memory"),
    (("PHOTOS", "-o", "OUT", "--memory", "7M"), 1, "smaller --long-side"),
    (("PHOTOS", "-o", "OUT", "--features", "repaly"), 2, "did you mean 'replay'"),
    (("PHOTOS", "-o", "OUT", "--attention", "softmax", "--features", "replay"), 2, "softmax"),
    (("PHOTOS", "-o", "OUT", "--every", "1"), 2, "--every"),
    (("NOWHERE", "-o", "OUT"), 1, "NOWHERE"),
    (("EMPTY", "-o", "OUT"), 1, "EMPTY"),
    (("PHOTOS", "-o", "FILE"), 2, "FILE"),
    (("PHOTOS", "-o", "PHOTOS", "--overwrite"), 2, "PHOTOS"),
]


@pytest.mark.parametrize(("words", "code", "message"), BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    photos = photos.rename(tmp_path / "PHOTOS")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    named = [str(tmp_path / w) if w.isalpha() and w.isupper() else w for w in words]
    tiny = TINY if "--preset" not in words else TINY[2:]
    tiny = tiny if "--device" not in words else TINY[:-2]
    assert run(*named, *tiny) == code
    told = capsys.readouterr().err.strip()
    assert told.startswith("vggt3: "), told
    assert "\n" not in told
    assert message in told
    assert sorted(tmp_path.rglob("*")) == before


def test_an_existing_out_is_refused_or_replaced(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(photos, "-o", out, *TINY) == 0
    before = (out / "cameras.json").read_bytes()
    assert run(photos, "-o", out, *TINY) == 2
    assert "--overwrite" in capsys.readouterr().err
    (photos / "2.jpg").unlink()
    assert run(photos, "-o", out, *TINY, "--overwrite") == 0
    assert (out / "cameras.json").read_bytes() != before


def test_ctrl_c_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    for n in range(60):
        photo(photos / f"more{n}.jpg", (640, 480), n)
    words = [sys.executable, "-m", "vggt3", "reconstruct", str(photos), "-o", "out"]
    process = subprocess.Popen(
        [*words, "--preset", "tiny", "--long-side", "504", "--device", "cpu"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.decode().strip() == "vggt3: interrupted, nothing half-written was left"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_what_cannot_fit_stops_before_a_pixel_is_read(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    words = ("--preset", "tiny", "--device", "cpu", "--long-side", "100000")
    assert run(photos, "-o", tmp_path / "out", *words) == 1
    assert "the plan for 3 views must fit" in capsys.readouterr().err
    assert time.monotonic() - started < 20


def test_files_of_the_user_in_an_earlier_scene_stay(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(photos, "-o", out, *TINY) == 0
    (out / "mine.txt").write_text("mine")
    assert run(photos, "-o", out, *TINY, "--overwrite") == 2
    assert (out / "mine.txt").read_text() == "mine"


def test_names_that_are_no_text(photos: Path, tmp_path: Path) -> None:
    os.rename(photos / "1.jpg", os.fsencode(photos) + b"/bad\xff.jpg")
    os.rename(photos / "2.jpg", photos / "new\nline.jpg")
    assert run(photos, "-o", tmp_path / "out", *TINY) == 0
    frames = json.loads((tmp_path / "out/cameras.json").read_text())["frames"]
    assert {f["file"] for f in frames} == {"0.jpg", "bad\\xff.jpg", "new\nline.jpg"}


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--seed", "9" * 30), "--seed must be"), (("--config", "PHOTO"), "--config must be")],
)
def test_odd_arguments(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    named = [str(photos / "0.jpg") if w == "PHOTO" else w for w in words]
    assert run(photos, "-o", tmp_path / "out", *TINY, *named) == 2
    assert message in capsys.readouterr().err


def test_a_polite_kill_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    for n in range(20):
        photo(photos / f"more{n}.jpg", (640, 480), n)
    words = [sys.executable, "-m", "vggt3", "reconstruct", str(photos), "-o", "out"]
    process = subprocess.Popen(
        [*words, "--preset", "tiny", "--long-side", "504", "--device", "cpu"], cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
