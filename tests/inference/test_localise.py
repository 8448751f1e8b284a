"""A photo's answer is forward's for that photo alone; asking changes nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vggt3
from tests.attention.scenes import photos
from tests.inference.conftest import SPECS, engine_of, label, questions, relative
from tests.model.conftest import Golden, distance
from vggt3 import checks
from vggt3.attention.registry import LayerSpec
from vggt3.geometry.alignment import Similarity
from vggt3.geometry.camera import camera_centres, decode_pose
from vggt3.geometry.projection import unproject
from vggt3.geometry.rotation import random_rotation
from vggt3.inference import localise as localise_module
from vggt3.inference.localise import Answer, Localizer, QueryOptions, gap_between
from vggt3.inference.mapping import map_taken
from vggt3.inference.options import RunOptions, parse_bytes
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import take
from vggt3.model import names
from vggt3.model.blocks import SelfAttention
from vggt3.model.scene import Memory
from vggt3.model.vggt3 import VGGT3
from vggt3.types import ViewGroup, Views

TTT = LayerSpec("ttt_shortconv")


def mapped(engine: SceneEngine, count: int = 5) -> SceneMemory:
    return map_taken(engine, take(Views.from_list(photos(count=count)), 42))


def alone(model: VGGT3, memory: Memory, views: Views, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pose, depth and points that forward gives one photo, asked by itself."""
    group = next(g for g in views.groups if index in g.ids)
    image = group.images[:, [group.ids.index(index)]]
    with torch.no_grad():
        found = model(Views.from_tensor(image), memory=memory)
    maps = found.dense[0]
    return decode_pose(found.pose[0, 0], group.size)[0], maps.depth[0, 0], maps.points[0, 0]


def answers(localizer: Localizer, views: Views) -> list[Answer]:
    return sorted(localizer.ask(views), key=lambda answer: answer.index)


@pytest.mark.parametrize("mode", ["whole", "loaded"])
def test_golden_queries(golden: Golden, tmp_path: Path, mode: str) -> None:
    """Views 3 and 4 in one call, from a map of views 0 to 2, are the reference's own answers."""
    expected = golden.file("vggt_ttt.query_outputs")
    model = golden.model("vggt_ttt", sweeps=2)
    options = RunOptions("cpu", points_from="head")
    scene = vggt3.map(model, golden.scene(), options)
    if mode == "loaded":
        scene.save(tmp_path / "golden.vggt3")
        scene = vggt3.SceneMemory.load(tmp_path / "golden.vggt3")
    views = Views.from_tensor(golden.images()[:, 3:])
    found = vggt3.localize(model, scene, views, options)
    for n in range(2):
        wanted = {k.partition(".")[2]: t for k, t in expected.items() if k[:6] == f"query{n}"}
        pose = found.cameras.camera_from_world[n]
        assert distance(pose, wanted["extrinsic_cam_from_world"][0, 0]) < 1e-5
        corner = wanted["intrinsics"][0, 0].clone()
        corner[:2, 2] += 0.5  # theirs has the ray of pixel 0 where ours has its corner
        assert distance(found.cameras.intrinsics[n], corner) < 1e-5
        assert distance(found.views[n].depth, wanted["depth"][0, 0, ..., 0]) < 1e-5
        assert distance(found.views[n].points, wanted["world_points"][0, 0]) < 1e-5


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_answers_are_those_of_one_photo_asked_by_itself(spec: LayerSpec) -> None:
    views = questions(4)
    for chunk in (1, 2, 64):
        engine = engine_of(spec, chunk)
        scene = mapped(engine)
        found = answers(Localizer(engine, scene), views)
        for answer in found:
            pose, depth, points = alone(engine.model, scene.memory, views, answer.index)
            assert answer.maps is not None
            assert relative(answer.camera_from_world, pose) < 1e-5
            assert relative(answer.maps.depth, depth) < 1e-5
            assert relative(answer.maps.points, points) < 1e-5


def test_points_from_depth_stand_where_the_camera_says() -> None:
    engine = SceneEngine(engine_of(TTT).model, RunOptions("cpu"))
    scene = mapped(engine)
    for answer in Localizer(engine, scene).ask(questions(2)):
        assert answer.maps is not None
        maps = answer.maps
        expected = unproject(maps.depth, answer.intrinsics, answer.camera_from_world, 0.5)
        assert relative(maps.points, expected) < 1e-6
        assert torch.equal(maps.points_confidence, maps.depth_confidence)


def test_a_large_map_is_asked_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera head sees so many sequences [map, photo] at a time as their bytes allow."""
    engine = engine_of(TTT)
    scene, views = mapped(engine), questions(6)
    expected = answers(Localizer(engine, scene), views)
    width = 2 * engine.model.config.width
    row = 6 * width * localise_module.HEAD_WIDTHS * 4  # five mapped views and one asked
    monkeypatch.setattr(localise_module, "HEAD_BYTES", 2 * row)
    seen: list[int] = []
    head = engine.model.camera_head.forward

    def watched(tokens: Tensor, asked: slice) -> list[Tensor]:
        seen.append(tokens.shape[0])
        return head(tokens, asked=asked)

    monkeypatch.setattr(engine.model.camera_head, "forward", watched)
    for found, wanted in zip(answers(Localizer(engine, scene), views), expected, strict=True):
        assert relative(found.camera_from_world, wanted.camera_from_world) < 1e-5
    assert max(seen) == 2
    assert sum(seen) == 6


def test_cameras_alone_need_less_memory() -> None:
    engine = engine_of(TTT)
    scene, large = mapped(engine), Views.from_tensor(torch.rand(1, 1, 3, 140, 140))
    tight = SceneEngine(engine.given, RunOptions("cpu", memory="14M"))
    with pytest.raises(checks.PlanError, match="at least"):
        next(Localizer(tight, scene).ask(large))
    assert len(answers(Localizer(tight, scene, QueryOptions(dense=False)), large)) == 1


@pytest.mark.parametrize("fast", [False, True])
def test_a_small_map_needs_little_memory(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    """Of the camera head what its sequences take, however much they might."""
    engine = engine_of(TTT)
    scene, views = mapped(engine), questions(2)

    def needed(head: int, memory: str) -> str:
        monkeypatch.setattr(localise_module, "HEAD_BYTES", head)
        tight = SceneEngine(engine.given, RunOptions("cpu", memory=memory))
        with pytest.raises(checks.PlanError) as caught:
            next(Localizer(tight, scene, QueryOptions(fast_head=fast)).ask(views))
        return str(caught.value).partition("got ")[2].partition(" at least")[0].replace(" ", "")

    least = needed(2**30, "1M")
    assert parse_bytes(least) < 2**24
    assert needed(1, "1M") == least  # one sequence it must have
    room = RunOptions("cpu", memory=int(parse_bytes(least) * 1.1))
    assert len(answers(Localizer(SceneEngine(engine.given, room), scene), views)) == 2


def test_a_smaller_photo_is_advised_where_it_is_enough() -> None:
    engine = engine_of(TTT)
    scene, large = mapped(engine), Views.from_tensor(torch.rand(1, 1, 3, 280, 280))

    def told(memory: str) -> str:
        tight = SceneEngine(engine.given, RunOptions("cpu", memory=memory))
        with pytest.raises(checks.PlanError) as caught:
            next(Localizer(tight, scene).ask(large))
        return str(caught.value).rpartition("; ")[2]

    assert told("1M") == "give more --memory"
    assert told("16M") == "give a smaller --long-side, or more --memory"


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_a_scene_is_asked_in_another_precision(spec: LayerSpec, tmp_path: Path) -> None:
    """Mapped in fp32 and asked in bf16, or the other way round: the answers are near."""
    wide = engine_of(spec)
    narrow = SceneEngine(wide.given, RunOptions("cpu", precision="bf16", points_from="head"))
    expected = answers(Localizer(wide, mapped(wide)), questions(2))
    for mapping, asking in ((wide, narrow), (narrow, wide), (narrow, narrow)):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        mapped(mapping).save(path)
        found = answers(Localizer(asking, SceneMemory.load(path)), questions(2))
        for a, b in zip(found, expected, strict=True):
            assert relative(a.camera_from_world, b.camera_from_world) < 0.1
            assert a.maps is not None
            assert b.maps is not None
            assert a.maps.depth.dtype == torch.float32
            assert relative(a.maps.depth.log(), b.maps.depth.log()) < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_a_gpu_says_the_same(spec: LayerSpec) -> None:
    """Mapped and asked there, in chunks whose results leave beside the next one's work."""
    here = engine_of(spec)
    options = RunOptions("cuda", precision="fp32", chunk=2, points_from="head")
    there = SceneEngine(here.given, options)
    views = questions(12)
    expected = answers(Localizer(here, mapped(here)), views)
    for _ in range(2):
        for a, b in zip(answers(Localizer(there, mapped(there)), views), expected, strict=True):
            assert relative(a.camera_from_world, b.camera_from_world) < 1e-3
            assert a.maps is not None
            assert b.maps is not None
            assert relative(a.maps.points, b.maps.points) < 1e-3
            assert a.confidence == pytest.approx(b.confidence, abs=1e-3)


def test_asking_changes_neither_scene_nor_model() -> None:
    engine = engine_of(TTT)
    scene = mapped(engine)
    before = {k: t.clone() for k, t in scene.packed().tensors.items()}
    weights = {k: t.clone() for k, t in engine.model.state_dict().items()}
    list(Localizer(engine, scene).ask(questions()))
    assert all(torch.equal(t, before[k]) for k, t in scene.packed().tensors.items())
    assert all(torch.equal(t, weights[k]) for k, t in engine.model.state_dict().items())


@pytest.mark.parametrize("spec", [LayerSpec("softmax"), TTT], ids=label)
def test_threads_ask_two_scenes_at_once(spec: LayerSpec) -> None:
    engine = engine_of(spec)
    scenes = [mapped(engine), mapped(engine, 3)]
    localizers = [Localizer(engine, scene) for scene in scenes]
    asked = [questions(2, seed) for seed in range(4)]
    expected = [[answers(one, views) for views in asked] for one in localizers]
    assert not torch.equal(expected[0][0][0].camera_from_world, expected[1][0][0].camera_from_world)
    failed: list[tuple[int, int]] = []

    def work(which: int, n: int) -> None:
        for _ in range(3):
            for found, wanted in zip(
                answers(localizers[which], asked[n]), expected[which][n], strict=True
            ):
                same = torch.equal(found.camera_from_world, wanted.camera_from_world)
                if not same or found.confidence != wanted.confidence:
                    failed.append((which, n))

    threads = [threading.Thread(target=work, args=(w, n)) for w in range(2) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_mask_says_who_sees_whom() -> None:
    """Row i of masked attention is the last row of attention among what row i sees."""
    attention = SelfAttention(16, 2).double()
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    place = torch.arange(6)
    mask = (place < 4) | (place == place[:, None])
    found = attention(x, mask=mask)
    assert torch.allclose(found[:, :4], attention(x[:, :4]), atol=1e-12)
    for n in (4, 5):
        seen = attention(x[:, [0, 1, 2, 3, n]])
        assert torch.allclose(found[:, n], seen[:, -1], atol=1e-12)


def test_the_fast_head_is_near_and_keeps_photos_apart() -> None:
    engine = engine_of(TTT)
    scene, views = mapped(engine), questions(4)
    fast = Localizer(engine, scene, QueryOptions(fast_head=True))
    together = answers(fast, views)
    for n in range(4):
        group = next(g for g in views.groups if n in g.ids)
        one = Views.from_tensor(group.images[:, [group.ids.index(n)]])
        (by_itself,) = fast.ask(one)
        assert relative(together[n].camera_from_world, by_itself.camera_from_world) < 1e-5
    gap = gap_between(Localizer(engine, scene), fast, views)
    assert 0 < gap.rotation_deg < 45
    assert gap.centre > 0


def test_alignment_moves_cameras_depth_and_points_together() -> None:
    engine = engine_of(TTT)
    scene, views = mapped(engine), questions(2)
    turn = random_rotation((), torch.Generator().manual_seed(1), torch.float64)
    motion = Similarity(torch.tensor(2.5).double(), turn, torch.tensor([1.0, -2.0, 3.0]).double())
    plain = answers(Localizer(engine, scene), views)
    moved = answers(Localizer(engine, scene, alignment=motion), views)
    for a, b in zip(plain, moved, strict=True):
        assert a.maps is not None
        assert b.maps is not None
        assert relative(b.maps.depth, 2.5 * a.maps.depth) < 1e-5
        centre = camera_centres(a.camera_from_world[None])
        assert relative(camera_centres(b.camera_from_world[None]), motion.apply(centre)) < 1e-5
        points = motion.apply(a.maps.points.flatten(0, 1).double()).float()
        assert relative(b.maps.points.flatten(0, 1), points) < 1e-5


def test_answers_in_a_surveyors_frame_are_as_exact_as_the_maps() -> None:
    engine = engine_of(TTT)
    scene, views = mapped(engine), questions(2)
    east = torch.tensor([465000.0, 5428000.0, 200.0]).double()
    motion = Similarity(torch.ones(()).double(), torch.eye(3).double(), east)
    plain = answers(Localizer(engine, scene), views)
    moved = answers(Localizer(engine, scene, alignment=motion), views)
    for a, b in zip(plain, moved, strict=True):
        assert a.maps is not None and b.maps is not None
        centre = camera_centres(a.camera_from_world.double())
        away = camera_centres(b.camera_from_world) - east - centre
        assert away.abs().max() < 1e-5
        far = (b.maps.points.double() - east - a.maps.points.double()).abs()
        assert far[..., :2].max() <= 0.25 and far[..., 2].max() < 1e-4  # half a step of float32


def test_a_video_of_cameras_alone() -> None:
    engine = engine_of(TTT)
    found = vggt3.localize(
        engine.model,
        mapped(engine),
        questions(2),
        RunOptions("cpu"),
        query=QueryOptions(dense=False),
    )
    assert found.views == ()
    assert found.names == ("view 0", "view 1")
    assert found.cameras.sizes == ((28, 42), (42, 28))


def test_what_cannot_be_asked() -> None:
    engine = engine_of(TTT)
    scene = mapped(engine)
    with pytest.raises(checks.DataError, match="backbone that the scene was mapped with"):
        Localizer(engine_of(TTT, seed=1), scene)
    with pytest.raises(checks.DataError, match=r"global attention .* \(ttt_shortconv\), got ttt_m"):
        Localizer(SceneEngine(_same_backbone(engine.model, "ttt_mlp"), RunOptions("cpu")), scene)
    tight = SceneEngine(engine.model, RunOptions("cpu", memory="1M"))
    with pytest.raises(checks.PlanError, match="a map of"):
        list(Localizer(tight, scene).ask(questions(1)))
    sides = Views((ViewGroup(torch.rand(2, 1, 3, 28, 28), (0,)),), 1)
    with pytest.raises(checks.UsageError, match=r"one scene \(B = 1\), got 2"):
        vggt3.localize(engine.model, scene, sides, RunOptions("cpu"))
    half = replace(Views.from_tensor(torch.rand(1, 2, 3, 28, 28)), total=3)
    with pytest.raises(checks.UsageError, match="hold all 3"):
        vggt3.map(engine.model, half, RunOptions("cpu"))


def _same_backbone(model: VGGT3, backend: str) -> VGGT3:
    other = VGGT3.build(model.config, backend).eval()
    kept = {k: t for k, t in model.state_dict().items() if not names.is_adapter(k)}
    other.load_state_dict(kept, strict=False)
    return other


def test_photos_by_name_are_for_the_function() -> None:
    engine = engine_of(LayerSpec("linear"))
    scene = map_taken(engine, take(Views.from_list(photos()), 42))
    with pytest.raises(checks.UsageError, match=r"vggt3\.localize takes photos .*, got 'photos/'"):
        Localizer(engine, scene).ask("photos/")  # type: ignore[arg-type]
    with pytest.raises(checks.UsageError, match="in Python overwrite=True"):
        scene.save(__file__)
