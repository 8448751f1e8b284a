"""A scene in a file is the scene; a file that is not is refused; files are as small as promised."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.attention.scenes import photos
from tests.inference.conftest import SPECS, engine_of, label, questions, relative
from vggt3 import checks
from vggt3.attention.base import Backend
from vggt3.attention.registry import LayerSpec
from vggt3.inference.identity import identity_of
from vggt3.inference.localise import Localizer
from vggt3.inference.mapping import check_size, map_taken
from vggt3.inference.options import RunOptions
from vggt3.inference.recall import Familiarity
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import take
from vggt3.io.scene_file import pack
from vggt3.model.config import SMALL, VGGT_1B
from vggt3.model.scene import Memory
from vggt3.model.weight_files import KEY
from vggt3.types import Cameras, Views

TTT = LayerSpec("ttt_shortconv")


def mapped(engine: SceneEngine) -> SceneMemory:
    return map_taken(engine, take(Views.from_list(photos()), 42), record={"long_side": 42})


@pytest.fixture(scope="module")
def scene() -> SceneMemory:
    return mapped(engine_of(TTT))


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_a_file_gives_back_every_bit(spec: LayerSpec, tmp_path: Path) -> None:
    engine = engine_of(spec)
    made = mapped(engine)
    saved = made.save(tmp_path / "scene.vggt3")
    assert saved.nbytes == (tmp_path / "scene.vggt3").stat().st_size
    found = SceneMemory.load(tmp_path / "scene.vggt3")
    assert found.facts() == made.facts()
    again, first = found.packed().tensors, made.packed().tensors
    assert again.keys() == first.keys()
    assert all(torch.equal(again[k], t) and again[k].dtype == t.dtype for k, t in first.items())
    assert found.cameras.sizes == made.cameras.sizes
    assert torch.equal(found.cameras.intrinsics, made.cameras.intrinsics)
    assert found.bounded == all(state.bounded for state in made.memory.states)
    for a, b in zip(
        Localizer(engine, found).ask(questions()),
        Localizer(engine, made).ask(questions()),
        strict=True,
    ):
        assert torch.equal(a.camera_from_world, b.camera_from_world)
        assert a.confidence == b.confidence


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_half_is_half_and_says_its_error(spec: LayerSpec, tmp_path: Path) -> None:
    engine = engine_of(spec)
    made = mapped(engine)
    whole, half = made.save(tmp_path / "a"), made.save(tmp_path / "b", half=True)
    assert whole.error == 0
    assert made.packed(half=True).nbytes < 0.56 * made.packed().nbytes
    assert 1e-5 < half.error < 5e-4  # float16 has 11 bits
    found = SceneMemory.load(tmp_path / "b")
    worst = max(
        relative(b[name], t)
        for a, b in zip(made.memory.states, found.memory.states, strict=True)
        for name, t in a.tensors.items()
    )
    tokens = relative(found.memory.camera_tokens, made.memory.camera_tokens)
    assert max(worst, tokens) == pytest.approx(half.error, rel=1e-3)
    assert all(
        t.dtype == a[name].dtype
        for a, b in zip(made.memory.states, found.memory.states, strict=True)
        for name, t in b.tensors.items()
    )
    list(Localizer(engine, found).ask(questions(1)))


def test_half_holds_what_float16_cannot() -> None:
    """Linear attention's sums over a million tokens are far beyond 65504."""
    large, tiny = torch.randn(50, 50) * 1e9, torch.randn(50, 50) * 1e-12
    packed = pack({"a": large, "b": tiny, "z": torch.zeros(3)}, frozenset("abz"))
    assert {t.dtype for t in packed.tensors.values()} == {torch.float16}
    found = packed.unpacked()
    assert relative(found["a"], large) < 5e-4
    assert relative(found["b"], tiny) < 5e-4
    assert torch.equal(found["z"], torch.zeros(3))


def size_at_vggt_1b(backend: str, views: int, half: bool) -> int:
    """Bytes of a scene file of the large model, its tensors without values."""
    with torch.device("cpu"):
        attn: Backend = LayerSpec(backend).build(VGGT_1B.width, VGGT_1B.heads, 0).eval()
    state = attn.begin(views, 1, torch.device("cpu")).map(lambda t: t.contiguous()).to("meta")
    layers = (LayerSpec(backend),) * VGGT_1B.layers
    tokens = torch.empty(1, views, 2 * VGGT_1B.width, device="meta")
    made = SceneMemory(
        Memory((state,) * VGGT_1B.layers, tokens, (None,) * VGGT_1B.layers),
        Cameras(torch.zeros(views, 3, 4), torch.zeros(views, 3, 3), ((392, 518),) * views),
        tuple(f"frame_{n:06d}.color.png" for n in range(views)),
        ((1080, 1920),) * views,
        views * 1041,
        replace(identity_of(engine_of(TTT).model), config=VGGT_1B, layers=layers),
        Familiarity(0.9, 0.5),
        {"long_side": 518, "precision": "bfloat16"},
    )
    header = json.dumps({"facts": made.facts(), "packed": made.packed(half).how})
    return made.packed(half).nbytes + len(header) + 150 * len(made.packed().tensors)


@pytest.mark.parametrize("backend", ["ttt_mlp", "ttt_shortconv"])
def test_size_of_a_file_at_vggt_1b(backend: str) -> None:
    """At most 80 MB + 8 kB a view, halved 40 MB + 4 kB a view: for up to 8000 views."""
    for views in (1, 100, 1000, 8000):
        assert size_at_vggt_1b(backend, views, half=False) <= 80e6 + 8e3 * views
        assert size_at_vggt_1b(backend, views, half=True) <= 40e6 + 4e3 * views
    assert size_at_vggt_1b(backend, 1000, half=False) > 75e6 + 8192 * 1000


def test_the_computed_size_is_the_file_s(scene: SceneMemory, tmp_path: Path) -> None:
    saved = scene.save(tmp_path / "a.vggt3")
    tensors = scene.packed()
    assert tensors.nbytes < saved.nbytes < tensors.nbytes + 20_000


def test_a_scene_of_small_loads_at_once(tmp_path: Path) -> None:
    """Half a second, from the imports' end to a scene that can be asked: 100 mapped photos."""
    layers = (TTT,) * SMALL.layers
    attn = TTT.build(SMALL.width, SMALL.heads, 0).eval()
    state = attn.begin(100, 1, torch.device("cpu")).map(lambda t: t.contiguous())
    SceneMemory(
        Memory((state,) * SMALL.layers, torch.randn(1, 100, 2 * SMALL.width), (None,) * 9),
        Cameras(torch.zeros(100, 3, 4), torch.zeros(100, 3, 3), ((224, 224),) * 100),
        tuple(map(str, range(100))),
        ((224, 224),) * 100,
        100 * 261,
        replace(identity_of(engine_of(TTT).model), config=SMALL, layers=layers),
        Familiarity(0.9, 0.5),
    ).save(tmp_path / "small.vggt3")
    seconds = []
    for _ in range(3):
        start = time.process_time()
        SceneMemory.load(tmp_path / "small.vggt3")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5, seconds


def edited(path: Path, change: str) -> None:
    """Change a scene file as a tool would that knows nothing of its checksum."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[KEY])
    tensors = load_file(path)
    if change == "a number":
        name = next(k for k in tensors if k.endswith("w0"))
        tensors[name][0, 0, 0, 0] += 1e-3
    elif change == "a name":
        header["facts"]["names"][1] = "other.png"
    elif change == "a tensor's name":
        tensors["more"] = torch.zeros(2)
    elif change == "format":
        header["format"] = 2
    elif change == "kind":
        header["kind"] = "cake"
    save_file(tensors, path, {KEY: json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a number", "as it was written"),
        ("a name", "as it was written"),
        ("a tensor's name", "as it was written"),
        ("format", "be a scene of format 1, got format 2"),
        ("kind", "a file of kind 'cake'"),
    ],
)
def test_a_changed_file_is_refused(
    scene: SceneMemory, tmp_path: Path, change: str, message: str
) -> None:
    path = tmp_path / "scene.vggt3"
    scene.save(path)
    edited(path, "nothing")
    SceneMemory.load(path)  # the tool itself does no harm
    edited(path, change)
    with pytest.raises(checks.DataError, match=message):
        SceneMemory.load(path)


def test_a_damaged_file_is_refused(scene: SceneMemory, tmp_path: Path) -> None:
    path = tmp_path / "scene.vggt3"
    scene.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, message in (
        (whole[: len(whole) // 2], "whole safetensors file"),
        (whole[:5], "whole safetensors file"),
        (b"", "whole safetensors file"),
        (bytes(flipped), "as it was written"),
    ):
        path.write_bytes(content)
        with pytest.raises(checks.DataError, match=message):
            SceneMemory.load(path)
    for place, message in ((tmp_path, "a folder"), (tmp_path / "none", "no such file")):
        with pytest.raises(checks.DataError, match=f"be a scene file, got {message}"):
            SceneMemory.load(place)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(checks.DataError, match="safetensors without our header"):
        SceneMemory.load(path)


def test_only_an_earlier_scene_is_replaced(scene: SceneMemory, tmp_path: Path) -> None:
    path = tmp_path / "scene.vggt3"
    scene.save(path)
    with pytest.raises(checks.UsageError, match="--overwrite"):
        scene.save(path)
    scene.save(path, overwrite=True)
    path.write_text("mine")
    with pytest.raises(checks.UsageError, match="earlier scene"):
        scene.save(path, overwrite=True)
    assert path.read_text() == "mine"
    with pytest.raises(checks.UsageError, match="be a file, got a folder"):
        scene.save(tmp_path)
    broken = replace(
        scene, memory=replace(scene.memory, camera_tokens=scene.memory.camera_tokens * torch.nan)
    )
    with pytest.raises(checks.DataError, match="hold finite camera_tokens"):
        broken.save(tmp_path / "broken")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["scene.vggt3"]


def test_softmax_says_how_large_and_what_helps() -> None:
    engine = engine_of(LayerSpec("softmax"))
    sizes = [(224, 224)] * 300
    tokens = 300 * (256 + 5)
    expected = 4 * 2 * tokens * 64 * 4  # layers; keys and values; tokens; width; bytes
    assert check_size(engine, sizes, "1G") == expected
    with pytest.raises(checks.PlanError) as told:
        check_size(engine, sizes, "100M")
    for part in ("about 152.9 MiB", "--limit 160.6MiB", "ttt_shortconv", "max_views"):
        assert part in str(told.value)
    assert check_size(engine_of(TTT), sizes * 100, "10M") < 10 * 2**20
    with pytest.raises(checks.PlanError, match=r"take at most 20\.0 KiB"):
        map_taken(engine, take(Views.from_list(photos()), 42), "20K")


def test_the_identity_is_of_values_not_of_where_they_lie() -> None:
    model = engine_of(TTT).model
    first = identity_of(model)
    assert identity_of(model) is first
    assert identity_of(engine_of(TTT).model) == first
    with torch.no_grad():
        model.camera_head.empty_pose.add_(1.0)
    assert identity_of(model).backbone != first.backbone
    assert identity_of(model).adapter == first.adapter
    with torch.no_grad():
        model.aggregator.block(1).attn.qkv.weight[0, 0] += 1.0
    assert identity_of(model).adapter != first.adapter
    assert identity_of(engine_of(TTT).model.bfloat16()).adapter == first.adapter


def test_options_that_leave_tensors_alone_may_differ(scene: SceneMemory) -> None:
    other = engine_of(LayerSpec("ttt_shortconv", (("sweeps", 3),)))
    Localizer(SceneEngine(other.model, RunOptions("cpu")), scene)
