"""``vggt3 map``, ``localize`` and ``extend`` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.commands.test_reconstruct import photo

from vggt3 import cli
from vggt3.commands import extend, map_scene
from vggt3.inference.scene_memory import SceneMemory

RANDOM = ("--preset", "tiny", "--attention", "ttt_shortconv")
TINY = (*RANDOM, "--long-side", "56", "--device", "cpu")


def run(*words: object) -> int:
    return cli.main([*map(str, words)])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five photos to map, two to ask about, two more to add."""
    for n in range(5):
        photo(tmp_path / "map" / f"{n}.jpg", (80, 60) if n % 2 else (60, 80), n)
    for n in range(2):
        photo(tmp_path / "ask" / f"q{n}.jpg", (80, 60), 10 + n)
        photo(tmp_path / "more" / f"m{n}.jpg", (80, 60), 20 + n)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frames(folder: Path) -> list[dict[str, object]]:
    found = json.loads((folder / "cameras.json").read_text())["frames"]
    assert isinstance(found, list)
    return found


def test_map_localize_extend(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("map", "map", "-o", "scene.vggt3", *TINY, "--half") == 0
    told = capsys.readouterr().out
    assert "half precision" in told
    assert "rotation" in told
    scene = SceneMemory.load("scene.vggt3")
    assert scene.names == tuple(f"{n}.jpg" for n in range(5))
    assert scene.original_sizes[:2] == ((80, 60), (60, 80))
    before = (desk / "scene.vggt3").read_bytes()

    # The scene knows its model, long side and sweeps; none of it is said again.
    assert run("localize", "scene.vggt3", "ask", "-o", "out", "--device", "cpu", "--points") == 0
    assert sorted(path.name for path in (desk / "out").iterdir()) == [
        "cameras.json", "points.ply", "scene.npz",
    ]  # fmt: skip
    found = frames(desk / "out")
    assert [(f["file"], f["width"], f["height"]) for f in found] == [
        ("q0.jpg", 80, 60), ("q1.jpg", 80, 60),
    ]  # fmt: skip
    assert all(0 < float(str(f["confidence"])) < 1 for f in found)
    with np.load(desk / "out" / "scene.npz") as maps:
        assert maps["depth/q1.jpg"].shape == (42, 56)
        assert maps["points/q1.jpg"].shape == (42, 56, 3)
    assert (desk / "scene.vggt3").read_bytes() == before

    words = ("extend", "scene.vggt3", "more", "-o", "grown.vggt3", "--device", "cpu")
    capsys.readouterr()
    assert run(*words, "--compare", "map") == 0
    told = capsys.readouterr().out
    assert "from all at once" in told
    assert "2 photos" in told
    grown = SceneMemory.load("grown.vggt3")
    assert grown.names[5:] == ("m0.jpg", "m1.jpg")
    assert run("localize", "grown.vggt3", "ask", "-o", "out2", "--device", "cpu") == 0
    assert frames(desk / "out2") != found


def test_a_scene_grows_by_the_options_that_it_was_mapped_with(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever else of the model is named; another value is refused before a photo is read."""
    options = ("--attention.newton_schulz", "3", "--attention.sweeps", "3")
    assert run("map", "map", "-o", "scene.vggt3", *TINY, *options) == 0
    words = ("extend", "scene.vggt3", "more", "--device", "cpu", *RANDOM)
    assert run(*words, "-o", "whole.vggt3") == 0
    assert run(*words, "-o", "same.vggt3", *options) == 0
    assert run(*words, "-o", "swept.vggt3", "--attention.sweeps", "1") == 0  # one step, no sweeps
    whole = (desk / "whole.vggt3").read_bytes()
    assert (desk / "same.vggt3").read_bytes() == whole == (desk / "swept.vggt3").read_bytes()
    capsys.readouterr()
    swept = ("--compare", "map", "--attention.sweeps", "1")  # all at once would have other sweeps
    for other in (("--attention.newton_schulz", "5"), swept):
        assert run(*words, "-o", "other.vggt3", *other) == 2
        told = capsys.readouterr().err
        assert f"{other[-2]} must be the 3 that layer 0 of the scene was mapped with" in told
    assert not (desk / "other.vggt3").exists()


def test_photos_alone_and_together_have_the_same_answers(desk: Path) -> None:
    assert run("map", "map", "-o", "scene.vggt3", *TINY) == 0
    device = ("--device", "cpu")
    assert run("localize", "scene.vggt3", "ask", "-o", "both", *device, "--cameras-only") == 0
    assert not (desk / "both" / "scene.npz").exists()
    assert run("localize", "scene.vggt3", "ask/q1.jpg", "-o", "one", *device, "--chunk", "1") == 0
    assert not (desk / "one" / "points.ply").exists()
    with np.load(desk / "one" / "scene.npz") as maps:
        assert sorted(maps.files) == ["depth/q1.jpg", "depth_confidence/q1.jpg"]
    together, alone = frames(desk / "both")[1], frames(desk / "one")[0]
    np.testing.assert_allclose(
        np.array(together["camera_to_world"]), np.array(alone["camera_to_world"]), atol=1e-5
    )
    assert run("localize", "scene.vggt3", "ask", "-o", "fast", *device, "--fast-head") == 0
    assert frames(desk / "fast")[1]["camera_to_world"] != together["camera_to_world"]


def test_a_reference_gives_answers_in_its_frame(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The map's own cameras, ten times as large and shifted, as somebody's known ones."""
    assert run("map", "map", "-o", "scene.vggt3", *TINY) == 0
    scene = SceneMemory.load("scene.vggt3")
    known = []
    for n, pose in enumerate(scene.cameras.world_from_camera.double()):
        moved = np.eye(4)
        moved[:3] = pose.numpy()
        moved[:3, 3] = 10 * moved[:3, 3] + [1, 2, 3]
        entry = {"file": f"photos/{n}.jpg", "width": 80, "height": 60, "fx": 50, "fy": 50}
        known.append({**entry, "cx": 40, "cy": 30, "camera_to_world": moved.tolist()})
    (desk / "known.json").write_text(json.dumps({"scale": "metric", "frames": known}))
    device = ("--device", "cpu")
    capsys.readouterr()
    assert run("localize", "scene.vggt3", "ask", "-o", "plain", *device) == 0
    words = ("localize", "scene.vggt3", "ask", "-o", "known", *device)
    assert run(*words, "--reference", "known.json") == 0
    told = capsys.readouterr().out
    assert "5 photos, residual" in told
    assert " m (" in told
    for a, b in zip(frames(desk / "plain"), frames(desk / "known"), strict=True):
        one, other = np.array(a["camera_to_world"]), np.array(b["camera_to_world"])
        np.testing.assert_allclose(other[:3, :3], one[:3, :3], atol=1e-4)
        np.testing.assert_allclose(other[:3, 3], 10 * one[:3, 3] + [1, 2, 3], rtol=1e-3)
    with np.load("plain/scene.npz") as a, np.load("known/scene.npz") as b:
        np.testing.assert_allclose(b["depth/q0.jpg"], 10 * a["depth/q0.jpg"], rtol=1e-3)
    content = json.loads((desk / "known" / "cameras.json").read_text())
    assert content["scale"].startswith("metric")
    for entry in known:  # the same centres, the cameras upside down
        turned = np.array(entry["camera_to_world"])
        turned[:3, :2] *= -1
        entry["camera_to_world"] = turned.tolist()
    (desk / "turned.json").write_text(json.dumps({"frames": known}))
    capsys.readouterr()
    assert run(*words[:4], "odd", *device, "--reference", "turned.json") == 0
    assert "turned from the map's by 180°" in capsys.readouterr().err
    entry = {**known[0], "file": "others/0.jpg"}
    (desk / "six.json").write_text(json.dumps({"frames": [*known, entry]}))
    capsys.readouterr()
    assert run(*words[:4], "four", *device, "--reference", "six.json") == 0
    told = capsys.readouterr()
    assert "4 photos, residual" in told.out
    assert "leaves out 1 photo whose names are ambiguous ('0.jpg')" in told.err
    (desk / "two.json").write_text(json.dumps({"frames": known[:2]}))
    assert run(*words[:4], "no", *device, "--reference", "two.json") == 1
    assert "know at least 3" in capsys.readouterr().err
    assert not (desk / "no").exists()


def test_photos_of_elsewhere_are_named(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("map", "map", "-o", "scene.vggt3", *TINY) == 0
    for least, said in ((1.0, True), (0.0, False)):
        monkeypatch.setattr("vggt3.commands.localize.LEAST", least)
        capsys.readouterr()
        words = ("localize", "scene.vggt3", "ask", "-o", f"out{least:g}", "--device", "cpu")
        assert run(*words, "--cameras-only") == 0
        told = capsys.readouterr().err
        assert ("2 of 2 photos probably do not show the mapped place" in told) == said
        assert ("q0.jpg (0." in told) == said


def test_overwrite_takes_the_commands_own_results_only(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("map", "map", "-o", "scene.vggt3", *TINY) == 0
    words = ("localize", "scene.vggt3", "ask", "-o", "out", "--device", "cpu", "--overwrite")
    assert run(*words) == 0 and run(*words) == 0  # its own
    reconstruct = ("reconstruct", "map", *TINY, "--overwrite")
    capsys.readouterr()
    assert run(*reconstruct, "-o", "out") == 2
    assert "what vggt3 localize wrote" in capsys.readouterr().err
    assert run(*reconstruct, "-o", "scene") == 0
    for name in ("preview.png", None):  # a scene whose picture was taken away is still a scene
        before = (desk / "scene" / "cameras.json").read_bytes()
        capsys.readouterr()
        assert run(*words[:4], "scene", *words[5:]) == 2
        told = capsys.readouterr().err
        assert "earlier results of this command" in told
        assert "what vggt3 reconstruct wrote" in told
        assert (desk / "scene" / "cameras.json").read_bytes() == before
        if name:
            (desk / "scene" / name).unlink()


BAD = [
    (("map", "map"), 2, "--output must be given"),
    (("map", "map", "-o", "scene.vggt3", *TINY), 2, "--overwrite"),
    (("map", "map", "-o", "map/0.jpg", *TINY, "--overwrite"), 2, "earlier scene"),
    (("map", "map", "-o", "map", *TINY), 2, "be a file, got a folder"),
    (("map", "nowhere", "-o", "x", *TINY), 1, "nowhere"),
    (("map", "map", "-o", "x", *TINY, "--limit", "1K"), 1, "--limit"),
    (("map", "map", "-o", "x", *TINY, "--limit", "much"), 2, "be a size such as 20G"),
    (("localize", "none.vggt3", "ask", "-o", "x"), 1, "no such file"),
    (("localize", "map/0.jpg", "ask", "-o", "x"), 1, "be a whole safetensors file"),
    (("localize", "scene.vggt3", "ask", "-o", "x", "--preset", "small"), 1, "--weights"),
    (("localize", "scene.vggt3", "ask", "-o", "x", "--seed", "3", *RANDOM), 1, "backbone"),
    (("localize", "scene.vggt3", "ask", "-o", "x", "--attention", "linear"), 1, "linear"),
    (("localize", "scene.vggt3", "none", "-o", "x"), 1, "none"),
    (("localize", "scene.vggt3", "ask", "-o", "ask"), 2, "ask"),
    (("localize", "scene.vggt3", "ask", "-o", "x", "--reference", "ask"), 1, "COLMAP"),
    (("localize", "scene.vggt3", "ask", "-o", "x", "--points", "--cameras-only"), 2, "--points"),
    (("extend", "scene.vggt3", "more"), 2, "--output must be given"),
    (("extend", "scene.vggt3", "map", "-o", "x"), 1, "leave them out), got '0.jpg' and 4 more"),
    (("extend", "scene.vggt3", "map/3.jpg", "-o", "x"), 1, "got '3.jpg' that it holds already"),
    (("extend", "scene.vggt3", "more", "-o", "x", "--compare", "ask"), 1, "--compare"),
]


@pytest.fixture(scope="module")
def scene_of_five(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("five")
    for n in range(5):
        photo(folder / "map" / f"{n}.jpg", (80, 60) if n % 2 else (60, 80), n)
    assert run("map", folder / "map", "-o", folder / "scene.vggt3", *TINY) == 0
    return (folder / "scene.vggt3").read_bytes()


@pytest.mark.parametrize(("words", "code", "message"), BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(
    desk: Path,
    scene_of_five: bytes,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    (desk / "scene.vggt3").write_bytes(scene_of_five)
    before = sorted(desk.rglob("*"))
    device = () if "--device" in words else ("--device", "cpu")
    assert run(*words, *device) == code
    told = capsys.readouterr().err.strip()
    assert told.startswith("vggt3: "), told
    assert "\n" not in told
    assert message in told
    assert sorted(desk.rglob("*")) == before
    assert (desk / "scene.vggt3").read_bytes() == scene_of_five


@pytest.mark.usefixtures("desk")
def test_several_processes_do_not_write_one_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (("map", "map"), ("localize", "s", "ask"), ("extend", "s", "more")):
        assert run(*words, "-o", "x") == 2
        assert "be one process" in capsys.readouterr().err


def test_a_scene_says_no_path_of_this_machine(scene_of_five: bytes, tmp_path: Path) -> None:
    (tmp_path / "scene.vggt3").write_bytes(scene_of_five)
    told = json.dumps(SceneMemory.load(tmp_path / "scene.vggt3").facts())
    assert str(tmp_path.parent) not in told
    assert "/" not in json.dumps(SceneMemory.load(tmp_path / "scene.vggt3").record["choice"])


def test_what_was_interrupted_was_not_written(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes time: a scene is saved behind it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(map_scene, "gap_between", interrupt)
        assert run("map", "map", "-o", "scene.vggt3", *TINY, "--half") == 130
    assert not (desk / "scene.vggt3").exists()
    assert run("map", "map", "-o", "scene.vggt3", *TINY) == 0
    before = (desk / "scene.vggt3").read_bytes()
    words = ("extend", "scene.vggt3", "more", "--overwrite", "--device", "cpu")
    for module, name, more in (
        (map_scene, "gap_between", ("--half",)),
        (extend, "distance", ("--compare", "map")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupt)
            assert run(*words, *more) == 130
        assert (desk / "scene.vggt3").read_bytes() == before


def test_a_name_that_cannot_be_written_is_refused_at_once(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (desk, desk / "new"):
        assert run("map", "nothing", "-o", place / ("n" * 240 + ".vggt3"), *TINY) == 2
        assert "must have a shorter name" in capsys.readouterr().err
