"""Thin and small things, the ways of cameras that keep their arrangement, materials by share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.test_scenes import centres, equal
from vggt3.data.procedural.build import Builder
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.materials import Column
from vggt3.data.procedural.scene import BOX, CYLINDER, SceneParameters
from vggt3.data.procedural.scenes import draw_scene
from vggt3.data.procedural.strewn import bar

SIZE = (28, 42)


def drawn(index: int = 0, **knobs: Any) -> SceneParameters:
    config = ProceduralConfig(**{"views": 5, "size": SIZE, "outdoors": 0, "abstract": 0, **knobs})
    return draw_scene(config, 13, index)


def test_a_bar_reaches_from_end_to_end() -> None:
    builder = Builder(Draw(0), ProceduralConfig(cylinders=1))
    ends = ((0.3, -0.2, 0.1), (1.0, 0.4, 1.5))
    bar(builder, *ends, 0.02, 0)
    bar(builder, *ends, 0.02, 0)
    arrays = builder.arrays()
    assert arrays.counts == (0, 1, 0, 1)  # a box where cylinders have no slot left
    for slot in arrays.used:
        affine = arrays.local_from_world[slot]
        local = [affine[:, :3] @ np.array(end) + affine[:, 3] for end in ends]
        np.testing.assert_allclose(local, [[0, 0, -1], [0, 0, 1]], atol=1e-9)
        turn = affine[:, :3] * arrays.half[slot][:, None]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
    upright = Builder(Draw(0), ProceduralConfig())
    bar(upright, (0, 0, 0), (0, 0, 1), 0.02, 0)
    assert np.isfinite(upright.arrays().local_from_world).all()


def test_things_are_strewn_where_it_is_asked_for() -> None:
    for index in range(3):
        before = drawn(index).counts[0]
        thin = drawn(index, thin=(6, 6), cylinders=60).counts[0]
        cluttered = drawn(index, clutter=(9, 9), boxes=120, balls=40, cylinders=60).counts[0]
        assert thin[[BOX, CYLINDER]].sum() >= before[[BOX, CYLINDER]].sum() + 6
        assert cluttered.sum() >= before.sum() + 9


def test_turning_cameras_share_one_place() -> None:
    for index in range(4):
        scenes = drawn(index, orbits=0, walks=0, scattered=0, turns=1, roll_deg=0)
        place = centres(scenes)
        torch.testing.assert_close(place, place[:1].expand_as(place), atol=1e-5, rtol=0)
        forward = scenes.camera_from_world[0, :, 2, :3]
        assert float((forward @ forward.T).min()) < 0.98


def test_advancing_cameras_go_where_they_look() -> None:
    for index in range(4):
        scenes = drawn(index, orbits=0, walks=0, scattered=0, advances=1, spread=(0.8, 1.0))
        place = centres(scenes)
        way = place[-1] - place[0]
        assert float(way.norm()) > 0.05
        along = torch.nn.functional.normalize(way, dim=0)
        aside = (place - place[0]) - ((place - place[0]) @ along)[:, None] * along
        assert float(aside.norm(dim=-1).max()) < 1e-3 + 0.02 * float(way.norm())
        assert float((scenes.camera_from_world[0, :, 2, :3] @ along).min()) > 0.8


def column(scenes: SceneParameters, which: Column) -> Tensor:
    rows = scenes.materials[0]
    return rows[rows[:, Column.CELL_WIDTH] > 0, which]


def test_shares_of_materials() -> None:
    strong = (column(drawn(0, glossy=1.0), Column.SPECULAR) >= 0.3).float().mean()
    usual = (column(drawn(0), Column.SPECULAR) >= 0.3).float().mean()
    assert float(strong) == 1 and float(usual) < 0.7
    weak = column(drawn(0, weak=1.0), Column.OCTAVE_1).abs()
    assert float(weak.max()) < 0.07
    assert len(column(drawn(0, repeated=0.8), Column.SEED)) < len(column(drawn(0), Column.SEED))


def test_knobs_that_are_off_change_nothing() -> None:
    off: dict[str, Any] = {
        "clutter": (0, 0), "thin": (0, 0), "repeated": 0.0, "weak": 0.0, "glossy": 0.0,
        "turns": 0.0, "advances": 0.0, "jpeg": None,
    }  # fmt: skip
    assert equal(drawn(2), drawn(2, **off)) and not drawn(2).jpeg
