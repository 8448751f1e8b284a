"""``vggt3 weights`` and the Hub: what is printed, what an offline machine is told, exit codes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from tests.model.conftest import Golden
from tests.model.weight_cases import write_tiny
from vggt3 import checks, cli
from vggt3.model import hub
from vggt3.model.opening import SHIPPED


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = cli.main(["weights", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def test_show_without_a_file_lists_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show")
    listed = [line.split()[0] for line in out.splitlines()]
    assert code == 0 and listed == sorted(p.stem for p in SHIPPED.glob("*.safetensors"))
    assert all(run(capsys, "show", name)[0] == 0 for name in listed)


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path)
    code, out, err = run(capsys, "show", tmp_path / "tiny.ttt_shortconv.safetensors")
    assert (code, err) == (0, "")
    assert "layers 0-3   ttt_shortconv (hidden 2); start drawn from its seed" in out
    assert "preset tiny, width 64, layers 4" in out
    assert out.splitlines()[-1].split()[:3] == ["all", "28", "70,424"]
    code, out, _ = run(capsys, "show", tmp_path / "tiny.safetensors")
    assert code == 0 and "record: steps  3" in out
    assert [line.split("  ")[0] for line in out.splitlines()[-8:]] == [
        "camera head",
        "depth head",
        "encoder",
        "frame blocks",
        "global blocks without attention",
        "point head",
        "tokens and embedding",
        "all",
    ]


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    code, out, err = run(capsys, "check", *files)
    assert code == 0 and err == ""
    assert out.count("belongs to tiny.safetensors") == 3 and out.count(": backbone, ") == 1
    files[0].write_bytes(files[0].read_bytes()[:-5])
    code, out, err = run(capsys, "check", *files)
    assert code == 1 and err.startswith(f"vggt3: {files[0]} must be a whole safetensors file")
    assert err.count("\n") == 1 and out.count("\n") == 3


def test_import(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in" / "model.safetensors"
    source.parent.mkdir()
    save_file(golden.file("vggt.weights"), source)
    for given in (source, source.parent):
        out = tmp_path / f"out_{given.suffix}"
        code, told, err = run(capsys, "import", given, "-o", out, "--camera-heads", 4)
        assert (code, err) == (0, "")
        assert "the weights keep the one they were published under" in told
        assert sorted(p.name for p in out.iterdir()) == [
            "imported.safetensors",
            "imported.softmax.safetensors",
        ]
    code, _, err = run(capsys, "import", source, "-o", out)
    assert code == 2 and "--overwrite" in err and err.count("\n") == 1
    code, _, err = run(capsys, "import", tmp_path / "nothing.pt", "-o", out)
    assert code == 1 and "no such file" in err
    code, _, err = run(capsys, "import", source)
    assert code == 2 and "--output must be given" in err


def test_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "a.safetensors", tmp_path / "x.encoder.safetensors"
    save_file({"cls_token": torch.zeros(1, 1, 8)}, source)
    code, _, err = run(capsys, "encoder", source, "-o", out)
    assert code == 1 and "must hold encoder.patch.weight" in err
    out.write_bytes(b"mine")
    code, _, err = run(capsys, "encoder", source, "-o", out)
    assert code == 2 and "--overwrite" in err and out.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        ("facebook/VGGT-1B", True),
        ("nvidia/vgg-ttt", True),
        ("model.pt", False),
        ("folder/model.pt", False),
        ("folder/x.safetensors", False),
        ("../weights", False),
        ("a/b/c", False),
        ("/etc/passwd", False),
    ],
)
def test_words_that_are_repositories(word: str, is_one: bool) -> None:
    assert hub.is_repo(word) is is_one


class Hub:
    """The Hub as ``huggingface_hub`` shows it, with files on this machine."""

    def __init__(self, folder: Path, card: Any = None, error: Exception | None = None) -> None:
        self.folder, self.card, self.error = folder, card, error

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(huggingface_hub, "HfApi", lambda: self)
        patch.setattr(huggingface_hub, "hf_hub_download", self.download)
        patch.setattr(huggingface_hub, "try_to_load_from_cache", self.cached)

    def model_info(self, repo: str, timeout: float) -> Any:
        if self.error is not None:
            raise self.error
        held = [SimpleNamespace(rfilename=p.name) for p in self.folder.iterdir()]
        return SimpleNamespace(siblings=held, card_data=self.card)

    def download(self, repo: str, name: str) -> str:
        return str(self.folder / name)

    def cached(self, repo: str, name: str) -> str | None:
        path = self.folder / name
        return str(path) if path.is_file() else None


@pytest.fixture
def repository(golden: Golden, tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(golden.file("vggt.weights"), folder / "model.safetensors")
    (folder / "README.md").write_text("card")
    (folder / "model.pt").write_bytes(b"the same, as a pickle")
    return folder


def fetch(capsys: pytest.CaptureFixture[str], out: Path, repo: str) -> tuple[int, str, str]:
    return run(capsys, "import", repo, "-o", out, "--camera-heads", 4)


def test_a_repository_by_name(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = SimpleNamespace(license="cc-by-nc-4.0", license_name=None)
    Hub(repository, card).install(monkeypatch)
    code, out, err = fetch(capsys, tmp_path / "out", "facebook/VGGT-1B")
    assert (code, err) == (0, "")
    licence = out.splitlines()[0]
    assert licence.startswith("licence of facebook/VGGT-1B: for non-commercial use only")
    assert "the Hub says: cc-by-nc-4.0" in licence
    code, out, _ = run(capsys, "show", tmp_path / "out" / "imported.safetensors")
    assert "record: repository" in out and "facebook/VGGT-1B" in out


NETWORK = [
    errors.OfflineModeIsEnabled("offline mode is enabled"),
    errors.LocalEntryNotFoundError("no cache"),
    ConnectionError("Name or service not known\nsecond line"),
    TimeoutError(),
    *[base("cut off") for base in errors.HfHubHTTPError.__bases__ if base is not OSError],
]


@pytest.mark.parametrize("error", NETWORK, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("repo", ["facebook/VGGT-1B", "nvidia/vgg-ttt"])
def test_an_offline_machine_is_told_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    repo: str,
) -> None:
    Hub(tmp_path, error=error).install(monkeypatch)
    code, out, err = fetch(capsys, tmp_path / "out", repo)
    assert (code, out) == (1, "") and err.count("\n") == 1
    for said in (repo, "model.safetensors", "model.pt", "config.json", "vggt3 weights import"):
        assert said in err


def test_an_offline_machine_uses_its_cache(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Hub(repository, error=ConnectionError("no route")).install(monkeypatch)
    code, out, _ = fetch(capsys, tmp_path / "out", "facebook/VGGT-1B")
    assert code == 0 and "the Hub's card could not be read" in out and "CC-BY-NC-4.0" in out


def test_a_repository_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    Hub(folder).install(monkeypatch)
    with pytest.raises(checks.DataError, match=r"must hold one checkpoint .* got no checkpoint"):
        hub.fetch("a/b")
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (folder / name).touch()
    with pytest.raises(checks.DataError, match=r"got model-0000.-of"):
        hub.fetch("a/b")
    assert hub.choose_file("a/b", ["x.safetensors", "y.pt"]) == "x.safetensors"
    assert hub.choose_file("a/b", ["model.pt", "x.safetensors"]) == "model.pt"
    invalid = errors.HFValidationError("Repo id must be alphanumeric")
    Hub(folder, error=invalid).install(monkeypatch)
    with pytest.raises(checks.DataError, match="Repo id must be"):
        hub.fetch("a/--b")


@pytest.mark.parametrize(
    ("kind", "told"),
    [(errors.RepositoryNotFoundError, "no such repository"), (errors.GatedRepoError, "accepted")],
)
def test_a_repository_without_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], told: str
) -> None:
    error = kind.__new__(kind)  # what its constructor takes differs between versions
    Hub(tmp_path, error=error).install(monkeypatch)
    with pytest.raises(checks.DataError, match=told):
        hub.fetch("a/b")
