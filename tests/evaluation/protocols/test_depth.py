"""Depth of videos: what is far is left out, a scale is free, and a shift where it is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.layouts import WRITERS, drawn
from tests.evaluation.protocols.oracle import LONG_SIDE, changed_views, engine
from vggt3.data.readers.record import Scene
from vggt3.evaluation.loading import load_views
from vggt3.evaluation.protocols.base import Answer
from vggt3.evaluation.protocols.catalogue import BONN, SINTEL, protocol
from vggt3.evaluation.protocols.depth import VideoDepths
from vggt3.evaluation.protocols.selection import Chosen, Every
from vggt3.evaluation.protocols.trial import Trial, TrialOptions
from vggt3.types import Cameras, DenseView


def knows(monkeypatch: pytest.MonkeyPatch, scale: float = 0.3, shift: float = 0.0) -> None:
    def answer(self: Trial, scene: Scene, chosen: Chosen) -> Answer:
        loaded = load_views(scene, chosen.views, LONG_SIDE, ("depth",))
        assert loaded.depth is not None
        views = {n: DenseView(n, (d - shift) * scale, d, d, d) for n, d in enumerate(loaded.depth)}
        empty: Cameras = None  # type: ignore[assignment]
        return Answer(empty, views)

    monkeypatch.setattr(Trial, "answer", answer)


def scores(folder: Path, name: str, **fields: object) -> dict[str, float]:
    chosen = replace(protocol(name), **fields)  # type: ignore[arg-type]
    (row,) = Trial(engine(), chosen, folder, TrialOptions(long_side=LONG_SIDE)).run().rows.values()
    return row.scores


@pytest.mark.parametrize("name", ["sintel", "bonn", "kitti"])
def test_the_truth_scores_full_marks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path, drawn())
    knows(monkeypatch)
    found = scores(tmp_path, name)
    assert found["absrel"] < 1e-6 and found["delta"] == 100 and found["views"] == 4
    knows(monkeypatch, shift=1.5)
    found = scores(tmp_path, name)
    assert found["absrel"] > 0.05 and found["absrel shift"] < 1e-6
    assert found["delta shift"] == 100


def test_what_is_far_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["bonn"](tmp_path, drawn())
    knows(monkeypatch)
    inner = Trial.answer

    def answer(self: Trial, scene: Scene, chosen: Chosen) -> Answer:
        found = inner(self, scene, chosen)

        def spoilt(view: DenseView) -> DenseView:
            far = view.depth_confidence > 2.0  # the truth
            return replace(view, depth=view.depth.masked_fill(far, 50.0))

        return changed_views(found, spoilt)

    monkeypatch.setattr(Trial, "answer", answer)
    assert scores(tmp_path, "bonn")["absrel"] > 0.2
    assert scores(tmp_path, "bonn", farthest=2.0)["absrel"] < 1e-6
    assert all(x != x for x in list(scores(tmp_path, "bonn", farthest=1e-9).values())[:4])


def test_the_published_protocols() -> None:
    sintel, bonn, kitti = (protocol(name) for name in ("sintel", "bonn", "kitti"))
    assert len(SINTEL) == 14 and sintel.scenes == SINTEL and bonn.scenes == BONN
    assert isinstance(sintel, VideoDepths) and sintel.farthest == 70
    assert isinstance(bonn, VideoDepths) and bonn.farthest == 70
    assert isinstance(kitti, VideoDepths) and kitti.farthest is None
    assert kitti.views == Every(1, 110) and kitti.scenes == ()
