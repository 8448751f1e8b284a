"""Data sets to learn from: which scenes and views, cut to size, mixed by weight."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.data.layouts import WRITERS, drawn, write_nrgbd, write_sevenscenes
from vggt3.checks import DataError, UsageError
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.scene import SceneBatch, SceneParameters
from vggt3.data.readers.layout import LAYOUTS, read_scenes
from vggt3.geometry.camera import normalise_to_first
from vggt3.geometry.projection import project, unproject
from vggt3.training.curriculum import RecipeScenes, Steps, parse_recipes
from vggt3.training.data import Batches
from vggt3.training.mixture import (
    Mixture,
    ReadSets,
    Source,
    parse_sources,
    read_batch,
    read_sets,
)

RECIPES = parse_recipes("3@28x42*2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chess with a sequence to learn from (six frames) and one that is held out (four)."""
    folder = tmp_path_factory.mktemp("seven")
    write_sevenscenes(folder, drawn(views=6))
    (folder / "chess/seq-03").rename(folder / "chess/seq-01")
    write_sevenscenes(folder, drawn(views=4))
    return folder


def sets(root: Path, weight: float = 1.0, cache: Path | None = None) -> ReadSets:
    sources = (Source("sevenscenes", weight, root), Source("procedural", 1.0, None))
    found = read_sets(sources, 0.3, cache or root.parent / "cache")
    assert found is not None
    return found


def mixture(root: Path, weight: float = 1.0, held_out: bool = False, seed: int = 4) -> Mixture:
    scenes = RecipeScenes(RECIPES, ProceduralConfig(furniture=(1, 2)), seed)
    return Mixture(scenes, sets(root, weight), RECIPES, seed, held_out)


def test_what_is_learned_from_and_what_is_held_out(root: Path) -> None:
    part = sets(root).parts[0]
    assert part is not None and sets(root).parts[1] is None
    assert [scene.name for scene in part.learned] == ["chess/seq-01"]
    assert [scene.name for scene in part.held_out] == ["chess/seq-03"]
    assert sets(root).check(RECIPES) == []
    assert sets(root, 3).described == "data sevenscenes:3,procedural:1, covisibility 0.3"


def test_a_set_without_a_split_holds_out_every_tenth(tmp_path: Path) -> None:
    write_nrgbd(tmp_path, drawn(views=3))
    alone = read_sets([Source("nrgbd", 1, tmp_path)], 0.3, tmp_path / "cache")
    assert alone is not None and alone.parts[0] is not None
    assert alone.parts[0].learned == alone.parts[0].held_out
    assert "nothing is held out" in alone.check(RECIPES)[0]
    for n in range(11):
        write_nrgbd(tmp_path / "new", drawn(views=3))
        (tmp_path / "new/whiteroom").rename(tmp_path / f"room{n:02d}")
    found = read_sets([Source("nrgbd", 1, tmp_path)], 0.3, tmp_path / "cache")
    assert found is not None and (part := found.parts[0]) is not None
    assert [scene.name for scene in part.held_out] == ["room09"]
    assert len(part.learned) == 11


def test_views_without_depth_are_left_out(root: Path, tmp_path: Path) -> None:
    write_nrgbd(tmp_path, drawn(views=4))
    (tmp_path / "whiteroom/depth/depth2.png").unlink()
    found = read_sets([Source("nrgbd", 1, tmp_path)], 0.3, tmp_path / "cache")
    assert found is not None and (part := found.parts[0]) is not None
    assert [view.name for view in part.learned[0].views] == ["img0", "img1", "img3"]
    said: list[str] = []
    notes = found.check(RECIPES, said.append)
    assert "nrgbd: 1 views without depth or camera are left out" in notes and said == []


def test_a_scene_without_depth_is_not_what_is_held_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_nrgbd(tmp_path / "new", drawn(views=3))
        (tmp_path / "new/whiteroom").rename(tmp_path / name)
    for depth in (tmp_path / "b/depth").iterdir():
        depth.unlink()
    found = read_sets([Source("nrgbd", 1, tmp_path)], 0.3, tmp_path / "cache")
    assert found is not None and (part := found.parts[0]) is not None
    assert [scene.name for scene in (*part.learned, *part.held_out)] == ["a", "a"]
    assert any("nothing is held out" in note for note in found.check(RECIPES))


def test_batches_are_mixed_by_weight(root: Path) -> None:
    scenes = mixture(root, weight=3)
    kinds = []
    for step in Steps(RECIPES, 4, count=60):
        made = {type(scenes[key]) for key in step}
        assert len(made) == 1  # a batch is of one data set
        kinds += made
    counts = Counter(kinds)
    assert 35 <= counts[SceneBatch] <= 54 and counts[SceneParameters] == 60 - counts[SceneBatch]


def test_a_scene_is_a_function_of_its_key(root: Path) -> None:
    keys = [(0, index) for index in range(12)]
    one = [mixture(root, 99)[key] for key in keys]
    two = [mixture(root, 99)[key] for key in reversed(keys)]
    views = set()
    for a, b in zip(one, reversed(two), strict=True):
        assert isinstance(a, SceneBatch) and isinstance(b, SceneBatch)
        assert torch.equal(a.images, b.images) and torch.equal(a.depth, b.depth)
        views.add(float(a.camera_from_world.sum()))
    assert len(views) > 6  # other views, other orders


def test_held_out_scenes_are_others(root: Path) -> None:
    held = [mixture(root, 99, held_out=True)[0, n] for n in range(6)]
    (scene,) = read_scenes("sevenscenes", root, "test")
    known = read_batch(scene, range(4), (28, 42)).images[0]
    for made in held:
        assert isinstance(made, SceneBatch)
        for image in made.images[0]:
            assert any(torch.equal(image, other) for other in known)


def test_workers_read_the_same(root: Path) -> None:
    steps = Steps(RECIPES, 4, count=3)
    alone = list(Batches(steps, mixture(root, 99)))
    together = list(Batches(steps, mixture(root, 99), workers=2))
    for a, b in zip(alone, together, strict=True):
        assert isinstance(a, SceneBatch) and isinstance(b, SceneBatch)
        assert a.images.shape == (2, 3, 3, 28, 42) and torch.equal(a.images, b.images)


@pytest.mark.parametrize("size", [(42, 56), (28, 70), (70, 28)])
def test_what_is_cut_keeps_its_geometry(root: Path, size: tuple[int, int]) -> None:
    """Points of a cut and resampled view, projected into the stored image: where its pixels are."""
    (scene,) = read_scenes("sevenscenes", root, "test")
    batch = read_batch(scene, [2, 0], size)
    assert batch.images.shape[-2:] == size and batch.depth.shape[-2:] == size
    torch.testing.assert_close(batch.camera_from_world[0, 0], torch.eye(3, 4), atol=1e-9, rtol=0)
    cameras = scene.cameras([2, 0])
    poses = normalise_to_first(cameras.camera_from_world)
    torch.testing.assert_close(batch.camera_from_world[0], poses.float())
    points = unproject(batch.depth, batch.intrinsics, batch.camera_from_world, 0.5)[0, 0]
    pixels, depth = project(points.double().reshape(-1, 3), cameras.intrinsics[0], poses[0])
    ratio = size[0] / size[1]
    height, width = min(48, 64 * ratio), min(64, 48 / ratio)
    across = pixels[..., 0].reshape(size)
    down = pixels[..., 1].reshape(size)
    known = batch.valid[0, 0]
    columns = (torch.arange(size[1]) + 0.5) * width / size[1] + (64 - width) / 2
    rows = (torch.arange(size[0]) + 0.5) * height / size[0] + (48 - height) / 2
    off = (across - columns)[known].abs().max(), (down - rows[:, None])[known].abs().max()
    assert max(off) < 0.76  # whole pixels are cut
    stored = scene.views[2].depth_map()
    there = stored[down[known].long(), across[known].long()]
    assert float((there - depth.reshape(size)[known]).abs().median()) < 1e-3


def test_sources_are_parsed() -> None:
    assert parse_sources("procedural", None) == (Source("procedural", 1, None),)
    assert parse_sources("sevenscenes:2, procedural:.5,dtu", "a, b/c") == (
        Source("sevenscenes", 2, Path("a")),
        Source("procedural", 0.5, None),
        Source("dtu", 1, Path("b/c")),
    )
    assert read_sets(parse_sources("procedural:3", None), 0.3) is None


@pytest.mark.parametrize(
    ("names", "root", "message"),
    [
        ("sevenscene", "a", "did you mean 'sevenscenes'"),
        ("sevenscenes", None, "--data.root must name a folder for each of: sevenscenes, got none"),
        ("sevenscenes", "a,b", "--data.root must name a folder for each of"),
        ("procedural", "a", "for each of: nothing, got a"),
        ("sevenscenes:0", "a", "the weight of --data sevenscenes must be above 0"),
        ("sevenscenes;dtu", "a,b", "--data must look like"),
    ],
)
def test_impossible_mixtures_are_said(names: str, root: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_sources(names, root)


UNLEARNED = {
    "bonn": "no pose and no intrinsics",
    "kitti": "no pose and no intrinsics",
    "wayspots": "no depth",
    "colmap": "no depth",
}
"""What these layouts lack for training."""


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_layout_is_a_training_set(name: str, tmp_path: Path) -> None:
    """One batch of a miniature of each; what a layout cannot have is said."""
    WRITERS[name](tmp_path / "data", drawn(views=6))
    if name == "sevenscenes":  # written as a sequence of the test split
        (tmp_path / "data/chess/seq-03").rename(tmp_path / "data/chess/seq-01")
    source = Source(name, 1, tmp_path / "data")
    if name in UNLEARNED:
        with pytest.raises(DataError, match=f"got {UNLEARNED[name]}"):
            read_sets([source], 0.3, tmp_path / "cache")
        return
    found = read_sets([source], 0.3, tmp_path / "cache")
    assert found is not None
    found.check(RECIPES)
    made = Mixture(RecipeScenes(RECIPES, ProceduralConfig(), 4), found, RECIPES, 4)[0, 0]
    assert isinstance(made, SceneBatch)
    assert made.images.shape == (1, 3, 3, 28, 42) and float(made.depth.max()) > 0
    assert len(set(made.images[0].flatten(1).sum(1).tolist())) == 3, "three views"
    assert list((tmp_path / "cache").rglob("*")), "covisibility is kept"


def test_what_cannot_be_learned_from_is_said(root: Path, tmp_path: Path) -> None:
    WRITERS["wayspots"](tmp_path, drawn())
    with pytest.raises(DataError, match="must have pose, intrinsics, depth, got no depth"):
        read_sets([Source("wayspots", 1, tmp_path)], 0.3, tmp_path)
    with pytest.raises(DataError, match=r"--data\.root .* looks like Wayspots"):
        read_sets([Source("dtu", 1, tmp_path)], 0.3, tmp_path)
    with pytest.raises(DataError, match=r"to hold out with 5 views that see more than 0\.3"):
        sets(root).check(parse_recipes("5@28x42*2"))
