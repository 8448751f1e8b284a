"""What views see of each other: by hand, kept in a file, and chains of views that agree."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.data.layouts import drawn, write_captures, write_sevenscenes
from vggt3.checks import DataError
from vggt3.data.procedural.draw import Draw
from vggt3.data.readers import covisibility as module
from vggt3.data.readers.covisibility import Links, covisibility, frames_of
from vggt3.data.readers.layout import read_scenes
from vggt3.data.readers.record import Scene


def wall(shift: float = 0.0, turned: bool = False) -> Tensor:
    """A camera 1 m in front of a wall, ``shift`` metres to the right; or facing away from it."""
    pose = torch.eye(3, 4).double()
    pose[0, 3] = -shift
    if turned:
        pose[:, :3] = torch.diag(torch.tensor([-1.0, 1, -1])).double()
    return pose


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Of the wall 64/52.5 = 1.219 m are seen at a time: the second camera sees half of the first's
    part, the third an eighth, the fourth looks the other way."""
    width = 64 / 52.5
    poses = [wall(), wall(width / 2), wall(width * 7 / 8), wall(turned=True)]
    base = drawn(views=4)
    write_captures(
        tmp_path, replace(base, depth=torch.ones_like(base.depth), pose=torch.stack(poses))
    )
    (found,) = read_scenes("captures", tmp_path)
    return found


def test_by_hand(scene: Scene) -> None:
    found = covisibility(scene)
    expected = torch.tensor(
        [[1, 0.5, 0.125, 0], [0.5, 1, 0.625, 0], [0.125, 0.625, 1, 0], [0, 0, 0, 1]]
    )
    torch.testing.assert_close(found, expected, atol=0.04, rtol=0)


def test_what_hides_another_is_not_seen(scene: Scene, tmp_path: Path) -> None:
    """The second camera has something 0.4 m in front of it: it does not see the wall."""
    first, second = scene.views[0], scene.views[0]
    near = replace(second, depth=lambda: torch.full((48, 64), 0.4))
    found = covisibility(replace(scene, views=(first, near)))
    assert found[0, 1] == 0


def test_it_is_computed_once(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = covisibility(scene, cache)
    (file,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_computed", lambda *_: pytest.fail("computed again"))
        assert torch.equal(covisibility(scene, cache), first)
    file.write_bytes(file.read_bytes()[:-9])  # damaged: replaced
    assert torch.equal(covisibility(scene, cache), first)
    assert torch.equal(covisibility(scene, cache), first) and len(list(cache.iterdir())) == 1
    os.utime(scene.views[0].file, ns=(1, 1))  # another image, perhaps
    covisibility(scene, cache)
    assert len(list(cache.iterdir())) == 2


def test_a_view_without_depth_is_said(tmp_path: Path) -> None:
    write_sevenscenes(tmp_path, drawn(views=2))
    (tmp_path / "chess/seq-03/frame-000001.depth.proj.png").unlink()
    (scene,) = read_scenes("sevenscenes", tmp_path)
    with pytest.raises(DataError, match="got no depth"):
        covisibility(scene)


def test_long_scenes_are_thinned(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FRAMES", 3)
    assert frames_of(scene) == [0, 1, 3]
    assert covisibility(scene).shape == (3, 3)


def chain(*pairs: tuple[int, int], count: int) -> Tensor:
    found = torch.eye(count)
    for a, b in pairs:
        found[a, b] = found[b, a] = 0.4
    return found


def test_groups_and_samples() -> None:
    """0–1–2–3 are a chain, 4–5 a pair, 6 alone."""
    links = Links.of(chain((0, 1), (1, 2), (2, 3), (4, 5), count=7))
    assert links.groups == ((0, 1, 2, 3), (4, 5), (6,)) and links.largest == 4
    seen = set()
    for n in range(200):
        chosen = links.sample(3, Draw(1, n))
        assert len(set(chosen)) == 3 and set(chosen) < {0, 1, 2, 3}
        for place, view in enumerate(chosen[1:], 1):
            assert links.near[view, chosen[:place]].any()
        seen.add(tuple(chosen))
    # Every chain of three by neighbours: 012 021? no: 2 is not beside 0.
    assert (0, 2, 1) not in seen and {(0, 1, 2), (1, 0, 2), (2, 1, 3), (3, 2, 1)} <= seen
    pairs = {tuple(sorted(links.sample(2, Draw(2, n)))) for n in range(200)}
    assert pairs == {(0, 1), (1, 2), (2, 3), (4, 5)}
    assert links.sample(4, Draw(3, 0)) == links.sample(4, Draw(3, 0))
    assert Links.of(chain((0, 1), count=2), 0.4).largest == 1  # more than, not as much as
