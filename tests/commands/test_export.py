"""``vggt3 export`` as typed: what it writes, and what bad input gets."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest
from tests.io.scenes import write_photos, write_scene

from vggt3 import cli
from vggt3.io import photo_files

pycolmap = pytest.importorskip("pycolmap")
pytest.importorskip("trimesh")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    write_scene(tmp_path / "scene", 3)
    write_photos(tmp_path / "photos", 3)
    return tmp_path / "scene"


def run(*words: object) -> int:
    return cli.main(["export", *map(str, words)])


def files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


PHOTOS = ["images/view_0.png", "images/view_1.png", "images/view_2.png"]


def test_colmap_beside_the_scene(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = scene.parent / "photos"
    assert run(scene, "--to", "colmap", "--photos", photos, "--points", 500) == 0
    out = scene.parent / "scene-colmap"
    found = files(out)
    assert {*PHOTOS, "vggt3.json"} < set(found)
    model = {f"sparse/0/{name}.bin" for name in ("cameras", "images", "points3D")}
    assert model < set(found)
    assert (out / "images/view_1.png").read_bytes() == (photos / "view_1.png").read_bytes()
    told = capsys.readouterr()
    assert "3 cameras, 500 points" in told.out and told.err == ""
    manifest = json.loads((out / "vggt3.json").read_text())
    assert manifest["files"] == found
    assert (manifest["target"], manifest["scene"]) == ("colmap", "scene")


def test_nerfstudio_with_links(scene: Path) -> None:
    out = scene.parent / "deep" / "ns"
    words = ("--photos", scene.parent / "photos", "--link", "-o", out)
    assert run(scene, "--to", "nerfstudio", *words) == 0
    assert files(out) == [*PHOTOS, "sparse_pc.ply", "transforms.json", "vggt3.json"]
    assert all((out / name).is_symlink() and (out / name).is_file() for name in PHOTOS)


def test_glb_is_a_file(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene)
    assert run(".", "--to", "glb") == 0
    assert (scene.parent / "scene.glb").read_bytes()[:4] == b"glTF"
    assert sorted(p.name for p in scene.parent.iterdir()) == ["photos", "scene", "scene.glb"]


def test_what_reconstruct_writes_can_be_exported(scene: Path) -> None:
    """By an untrained model: the machinery from photos to the last file."""
    photos, made = scene.parent / "photos", scene.parent / "made"
    tiny = ("--preset", "tiny", "--long-side", "56", "--device", "cpu")
    assert cli.main(["reconstruct", str(photos), "-o", str(made), *tiny]) == 0
    for target in ("colmap", "nerfstudio", "glb"):
        assert run(made, "--to", target) == 0
    model = pycolmap.Reconstruction(str(scene.parent / "made-colmap/sparse/0"))
    assert sorted(image.name for image in model.images.values()) == sorted(
        path.name for path in photos.iterdir()
    )
    assert model.compute_mean_reprojection_error() < 0.5


def test_without_photos_it_says_how(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(scene, "--to", "colmap") == 0
    assert "--photos PHOTOS copies them" in capsys.readouterr().err


def test_the_same_scene_gives_the_same_bytes(scene: Path) -> None:
    for target in ("colmap", "nerfstudio", "glb"):
        outs = [scene.parent / f"{side}-{target}" for side in "ab"]
        for out in outs:
            assert run(scene, "--to", target, "-o", out) == 0
        first, second = ([out] if out.is_file() else sorted(out.rglob("*")) for out in outs)
        for one, other in zip(first, second, strict=True):
            assert one.is_dir() or one.read_bytes() == other.read_bytes(), one


@pytest.mark.parametrize("percentile", [0, 99.999])
def test_the_cloud_is_never_empty(scene: Path, percentile: float) -> None:
    words = ("--to", "nerfstudio", "--confidence-percentile", percentile, "--points", 1)
    assert run(scene, *words) == 0
    ply = (scene.parent / "scene-nerfstudio/sparse_pc.ply").read_bytes()
    assert b"element vertex 1\n" in ply


BAD = [
    (("NOWHERE", "--to", "glb"), 1, "SCENE must name an existing"),
    (("PHOTOS", "--to", "glb"), 1, "got a folder of photos"),
    (("SCENE",), 2, "--to must be given"),
    (("SCENE", "--to", "colmpa"), 2, "did you mean 'colmap'"),
    (("SCENE", "--to", "glb", "--points", "0"), 2, "--points must be at least 1"),
    (("SCENE", "--to", "glb", "--confidence-percentile", "100"), 2, "--confidence-percentile"),
    (("SCENE", "--to", "colmap", "--depth-tolerance", "0"), 2, "--depth-tolerance must be"),
    (("SCENE", "--to", "colmap", "--link"), 2, "--link must come with --photos"),
    (("SCENE", "--to", "nerfstudio", "--text"), 2, "--text must be left out"),
    (("SCENE", "--to", "glb", "--photos", "PHOTOS"), 2, "--photos must be left out"),
    (("SCENE", "--to", "glb", "--depth-tolerance", "0.1"), 2, "--depth-tolerance must be left out"),
    (("SCENE", "--to", "colmap", "--photos", "SCENE"), 1, "hold at least one photo"),
    (("SCENE", "--to", "colmap", "--photos", "PHOTOS/view_2.png"), 1, "scene's 'view_0.png'"),
    (
        ("SCENE", "--to", "colmap", "-o", "PHOTOS"),
        2,
        "not exist yet (or pass --overwrite; in Python",
    ),
    (("SCENE", "--to", "colmap", "-o", "PHOTOS", "--overwrite"), 2, "no vggt3.json"),
    (("SCENE", "--to", "colmap", "-o", "SCENE", "--overwrite"), 2, "no vggt3.json"),
    (("SCENE", "--to", "glb", "-o", "PHOTOS", "--overwrite"), 2, "be a file, got a folder"),
    (("SCENE", "--to", "glb", "-o", "SCENE/scene.npz", "--overwrite"), 2, "of another kind"),
]


@pytest.mark.parametrize(("words", "code", "told"), BAD)
def test_bad_input(
    scene: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, told: str
) -> None:
    before = files(scene.parent)
    places = {"SCENE": scene, "PHOTOS": scene.parent / "photos", "NOWHERE": scene / "no"}
    typed = []
    for word in words:
        first, *rest = word.split("/")
        typed.append(places[first].joinpath(*rest) if first in places else word)
    assert run(*typed) == code
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert files(scene.parent) == before


@pytest.mark.parametrize(
    ("target", "module", "extra"), [("colmap", "pycolmap", "colmap"), ("glb", "trimesh", "glb")]
)
def test_a_missing_package_is_named_before_work(
    scene: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    module: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    before = files(scene.parent)
    assert run(scene, "--to", target) == 2
    assert f"pip install 'vggt3[{extra}]'" in capsys.readouterr().err
    assert files(scene.parent) == before


def test_a_failed_run_leaves_what_was_there(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, photos = scene.parent / "out", scene.parent / "photos"
    assert run(scene, "--to", "colmap", "-o", out, "--points", 10) == 0
    before = {name: (out / name).read_bytes() for name in files(out)}

    def full(source: Path, target: Path) -> None:  # named as by shutil
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(photo_files.shutil, "copyfile", full)
    assert run(scene, "--to", "colmap", "-o", out, "--photos", photos, "--overwrite") == 1
    told = f"vggt3: {out} (nothing was kept): No space left on device"
    assert told in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert sorted(p.name for p in scene.parent.iterdir()) == ["out", "photos", "scene"]


def test_an_export_that_was_worked_in_is_not_overwritten(
    scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scene.parent / "scene-nerfstudio"
    assert run(scene, "--to", "nerfstudio") == 0
    assert run(scene, "--to", "nerfstudio", "--overwrite", "--points", 7) == 0
    (out / "outputs").mkdir()
    (out / "outputs/weights.ckpt").write_text("a night's work")
    capsys.readouterr()
    assert run(scene, "--to", "nerfstudio", "--overwrite") == 2
    assert "'outputs/weights.ckpt', which vggt3 did not write" in capsys.readouterr().err
    assert (out / "outputs/weights.ckpt").is_file()
