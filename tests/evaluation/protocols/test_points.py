"""Point maps: an oracle scores full marks in any frame, and what is off is measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.data.layouts import drawn, write_sevenscenes
from tests.evaluation.protocols.oracle import LONG_SIDE, MOTION, changed_views, engine, knows
from vggt3 import cli
from vggt3.checks import DataError, UsageError
from vggt3.evaluation.loading import LoadedScene
from vggt3.evaluation.protocols.base import Answer
from vggt3.evaluation.protocols.catalogue import PROTOCOLS, protocol
from vggt3.evaluation.protocols.points import PointMaps
from vggt3.evaluation.protocols.selection import Chosen, Every, Strided
from vggt3.evaluation.protocols.trial import Trial, TrialOptions
from vggt3.evaluation.record import read_record
from vggt3.inference import engine as engine_module
from vggt3.inference.handover import Handover, Sink
from vggt3.inference.shelf import Copies

SMALL = TrialOptions(long_side=LONG_SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("seven")
    write_sevenscenes(root, drawn())
    return root


def trial(folder: Path, name: str = "7scenes-dense", **fields: object) -> Trial:
    chosen = replace(protocol(name), views=Every(1), **fields)  # type: ignore[arg-type]
    return Trial(engine(), chosen, folder, SMALL)


def test_the_truth_scores_full_marks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch)
    (row,) = trial(folder).run().rows.values()
    scores = row.scores
    assert (row.set, row.scene) == ("7scenes-dense", "chess/seq-03")
    # Resampling changes the rays: 64 × 48 pixels are seen at 56 × 42, exactly 7/8.
    assert max(scores[name] for name in ("cd", "cd head", "accuracy median")) < 1e-6
    assert scores["nc"] > 0.999999 and scores["views"] == 4
    assert 4 * 42 * 56 * 0.98 < scores["points"] < 4 * 42 * 56


def test_what_is_off_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall of error in one view: neither Sim(3) nor ICP can take it away, and CD is the mean
    of the two ways. The point head's cloud is another and is scored apart."""

    def worse(answer: Answer) -> Answer:
        first = answer.views[0]
        spoilt = replace(first, points=first.points + torch.tensor([0.0, 0.0, 0.37 * 0.5]))
        return replace(answer, views={**answer.views, 0: spoilt})

    knows(monkeypatch, worse)
    (row,) = trial(folder).run().rows.values()
    scores = row.scores
    assert scores["cd"] < 1e-6 and 0.01 < scores["cd head"] < 0.5
    both = (scores["accuracy head"] + scores["completeness head"]) / 2
    assert scores["cd head"] == pytest.approx(both)
    assert scores["nc head"] < scores["nc"]


def test_the_frame_is_the_first_listed_views(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch)
    sitting = trial(folder)
    scored = sitting.score(next(iter(sitting.scenes.values())))
    assert scored.truth is not None and (scored.truth[:1000, 2] > 0).all()
    motion = scored.clouds["depth"].motion
    torch.testing.assert_close(motion.scale, 1 / MOTION.scale)
    torch.testing.assert_close(motion.rotation, MOTION.rotation.T, atol=1e-9, rtol=0)


def test_icp_hears_pairs_within_the_limit_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(answer: Answer) -> Answer:
        first = answer.views[0]
        spoilt = replace(first, points=first.points + torch.tensor([0.0, 0.0, 0.37 * 0.5]))
        return replace(answer, views={**answer.views, 0: spoilt})

    knows(monkeypatch, worse)
    near = trial(folder).run().rows["7scenes-dense", "chess/seq-03"].scores
    none = trial(folder, icp_limit=1e-9).run().rows["7scenes-dense", "chess/seq-03"].scores
    assert near["accuracy median head"] < 0.5 * none["accuracy median head"]


def test_lost_points_are_nan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(answer: Answer) -> Answer:
        return changed_views(
            answer, lambda v: replace(v, points=torch.full_like(v.points, torch.nan))
        )

    knows(monkeypatch, lost)
    (row,) = trial(folder).run().rows.values()
    assert row.scores["cd"] < 1e-6 and row.scores["cd head"] != row.scores["cd head"]


def test_the_published_protocols() -> None:
    sparse, dense = protocol("7scenes-sparse"), protocol("7scenes-dense")
    assert sparse.views == Every(200) and dense.views == Every(40)
    assert len(sparse.scenes) == 18 and "redkitchen/seq-14" in sparse.scenes
    assert [len(protocol(n).scenes) for n in ("nrgbd-dense", "dtu", "eth3d")] == [9, 22, 13]
    nrgbd = [protocol(f"nrgbd-{kind}").views for kind in ("sparse", "dense")]
    assert nrgbd == [Every(500), Every(100)]
    dtu, eth3d = protocol("dtu"), protocol("eth3d")
    assert isinstance(dtu, PointMaps) and isinstance(eth3d, PointMaps)
    assert (dtu.views, dtu.icp_limit) == (Every(5), 100.0)  # millimetres
    assert (eth3d.views, eth3d.icp_limit, eth3d.points) == (Every(5), 0.1, None)
    assert protocol("7scenes-scaling-2000").views == Strided(10, 2000)
    digests = {p.digest for p in PROTOCOLS.values()}
    assert len(digests) == len(PROTOCOLS)
    assert replace(dense, about="in other words").digest == dense.digest
    assert replace(dense, views=Every(41)).digest != dense.digest
    with pytest.raises(UsageError, match="did you mean '7scenes-dense'"):
        protocol("7scene-dense")


def test_which_frames() -> None:
    assert Every(200).choose(1000).views == (0, 200, 400, 600, 800)
    assert Every(40).choose(81) == Chosen((0, 40, 80), (0, 1, 2))
    assert Every(1, 110).choose(300).views == tuple(range(110))
    found = Strided(10, 90).choose(100)  # all of them
    assert found.views == tuple(range(100)) and found.scored == tuple(range(0, 100, 10))
    found = Strided(10, 100).choose(1000)
    assert len(found.views) == 110 and found.views[0] == 0
    assert [found.views[n] for n in found.scored] == list(range(0, 1000, 100))
    between = [sum(100 * n < v < 100 * n + 100 for v in found.views) for n in range(10)]
    assert between == [10] * 10
    assert len(Strided(10, 2000).choose(500).views) == 500


def test_support_views_are_not_scored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch)
    chosen = replace(protocol("7scenes-scaling-100"), views=Strided(2, 1))
    sitting = Trial(engine(), chosen, folder, SMALL)
    (row,) = sitting.run().rows.values()
    assert row.scores["views"] == 3 and row.scores["cd"] < 1e-6
    assert 2 * 42 * 56 * 0.98 < row.scores["points"] < 2 * 42 * 56
    assert not any("fewer than" in note for note in sitting.notes)
    (told,) = Trial(engine(), protocol("7scenes-scaling-100"), folder, SMALL).notes[1:]
    assert told == "1 of 1 scenes have fewer than 110 views: all of theirs are shown"


def test_what_is_scored_is_kept_apart_from_memory_that_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a GPU hands maps over: through three rooms of page-locked memory, in turns."""

    class FromGPU(Handover):
        def __init__(self, sink: Sink, copies: Copies) -> None:
            super().__init__(sink, copies)
            self.direct = False

    shown, some = torch.rand(1, 70, 3, 28, 28), set(range(0, 70, 3))
    photos = LoadedScene(("",) * 70, ((28, 28),) * 70, tuple(shown[0]), None, None, None)
    chosen = Chosen(tuple(range(70)), tuple(sorted(some)))
    ask = partial(protocol("7scenes-dense").ask, engine(), photos, chosen)
    direct = ask()
    monkeypatch.setattr(engine_module, "Handover", FromGPU)
    handed = ask()
    assert set(handed.views) == some == set(direct.views)
    for n in some:
        assert torch.equal(handed.views[n].depth, direct.views[n].depth), n
        assert torch.equal(handed.views[n].points, direct.views[n].points), n


def test_missing_depth_is_said_before_anything_runs(tmp_path: Path) -> None:
    write_sevenscenes(tmp_path, drawn(views=2))
    (tmp_path / "chess/seq-03/frame-000001.depth.proj.png").unlink()
    with pytest.raises(DataError, match=r"frame-000001 of sevenscenes .* got no depth"):
        trial(tmp_path)


def run(*words: object) -> int:
    shown = ("--preset", "tiny", "--device", "cpu", "--long-side", "56", "--debug")
    return cli.main(["evaluate", *map(str, words), *shown])


def test_as_typed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, pictures = tmp_path / "run.json", tmp_path / "pictures"
    words = ("7scenes-dense", "--data", folder, "-o", out)
    assert run(*words, "--pictures", pictures) == 0
    printed = capsys.readouterr()
    for text in ("CD m", "NC", "median", "chess/seq-03", "command: vggt3", "tensors SHA-256"):
        assert text in printed.out, text
    assert "1 of the 18 scenes of 7scenes-dense" in printed.err
    names = {path.name for path in pictures.iterdir()}
    assert names == {f"7scenes-dense-chess-seq-03-{name}.png" for name in ("depth", "head")}
    first = json.loads(out.read_text())
    assert first["about"]["unit"] == "m" and first["about"]["long_side"] == 56
    assert "median" in first["summary"]["7scenes-dense"]["cd"]
    assert run(*words, "--markdown") == 0  # nothing is computed again
    assert json.loads(out.read_text())["sets"] == first["sets"]
    told = capsys.readouterr().out
    first_table, by_scene, lines = told.split("\n\n")  # else Markdown makes one of them
    assert first_table.startswith("| score | mean [95 % interval] | median | scenes |")
    assert by_scene.startswith("| scene | CD m |") and lines.startswith("- command: vggt3")
    assert run(*words, "--points", "head") == 2
    assert "be of the same points (head)" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert run("7scenes-dense", "--data", other, "-o", out) == 2, "the same names, other scenes"
    assert "be of the same data" in capsys.readouterr().err
    assert read_record(out).rows.keys() == {("7scenes-dense", "chess/seq-03")}
    again = tmp_path / "again.json"
    assert run("7scenes-dense", "--data", folder, "-o", again) == 0
    assert (
        json.loads(again.read_text())["sets"]["7scenes-dense"][0]["scores"]
        == (first["sets"]["7scenes-dense"][0]["scores"])
    )
    assert cli.main(["evaluate", "compare", str(out), str(again)]) == 0


def test_another_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("7scenes-sparse", "--data", tmp_path) == 1
    assert "must hold 7-Scenes (scene/seq-XX" in capsys.readouterr().err
