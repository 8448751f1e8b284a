"""What is recorded, and that a replay gives what the kernels give, to the thread that asked."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.attention.scenes import photos
from tests.inference.conftest import engine_of, label
from vggt3.attention.registry import LayerSpec
from vggt3.inference import localise as localise_module
from vggt3.inference.localise import Answer, Localizer, QueryOptions
from vggt3.inference.mapping import map_taken
from vggt3.inference.options import RunOptions
from vggt3.inference.recall import Recall
from vggt3.inference.recording import IDLE, PHOTOS, RECORDINGS, Found, Function, Recorder
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import take
from vggt3.model import maps
from vggt3.types import ViewGroup, Views

TTT = LayerSpec("ttt_shortconv")
SIZES = (28, 42), (42, 28)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


class Played:
    """Like a graph's: buffers that the next question overwrites, filled while nobody looks."""

    def __init__(self, function: Function, images: Tensor) -> None:
        self.function, self.given = function, images.clone()
        self.buffers = {name: torch.zeros_like(x) for name, x in function(images).items()}
        self.replays = 0

    @contextmanager
    def played(self, images: Tensor) -> Iterator[Found]:
        self.given.copy_(images)
        time.sleep(0.001)
        for name, x in self.function(self.given).items():
            self.buffers[name].copy_(x)
        self.replays += 1
        yield self.buffers


class Counted:
    """A function that says how often it was called, and makes recordings or fails to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls, self.made, self.error = 0, [], error
        self.made: list[Played]

    def __call__(self, images: Tensor) -> Found:
        self.calls += 1
        return {"twice": 2 * images}

    def record(self, function: Function, images: Tensor) -> Played:
        if self.error is not None:
            raise self.error
        self.made.append(Played(function, images))
        return self.made[-1]


def images(count: int = 1, side: int = 2, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(1, count, 3, side, side).mul(255).to(kind)


def asked(recorder: Recorder, function: Counted, given: Tensor, nbytes: int = 1) -> None:
    """Ask, and hold the answer to the function's own."""
    with recorder.found(function, given, nbytes) as found:
        assert torch.equal(found["twice"], 2 * given)


def test_the_second_of_a_shape_is_recorded() -> None:
    function = Counted()
    recorder = Recorder(100, function.record)
    asked(recorder, function, images())
    asked(recorder, function, images(2))
    asked(recorder, function, images(kind=torch.uint8))
    assert function.made == []
    for _ in range(3):
        asked(recorder, function, images())
    assert [made.replays for made in function.made] == [3]
    asked(recorder, function, images(2))
    assert [made.replays for made in function.made] == [3, 1]


def test_large_chunks_are_not() -> None:
    function = Counted()
    recorder = Recorder(100, function.record)
    for _ in range(3):
        asked(recorder, function, images(PHOTOS + 1))
        asked(recorder, function, images(PHOTOS))
    assert [made.given.shape[1] for made in function.made] == [PHOTOS]


@pytest.mark.parametrize(("room", "most"), [(100, RECORDINGS), (2, 2), (0, 0)])
def test_recordings_are_bounded_and_not_made_again_and_again(room: int, most: int) -> None:
    function = Counted()
    recorder = Recorder(room, function.record)
    for _ in range(10):
        for side in range(2, 3 + RECORDINGS):  # one shape too many, in turn
            asked(recorder, function, images(side=side))
    assert len(recorder.kept) == len(function.made) == most


def test_an_idle_recording_makes_way() -> None:
    function = Counted()
    recorder = Recorder(2, function.record)
    for side in (2, 2, 3, 3, 4, 4):
        asked(recorder, function, images(side=side))
    assert [made.given.shape[-1] for made in function.made] == [2, 3]
    for _ in range(IDLE):
        asked(recorder, function, images(side=3))
    asked(recorder, function, images(side=4))
    assert [shape[-1] for shape, _ in recorder.kept] == [3, 4]


def test_what_cannot_be_recorded_is_said_once() -> None:
    first = RuntimeError("a value was fetched\nand more")
    error = RuntimeError("the capture is invalid")
    error.__context__ = first
    function = Counted(error)
    recorder = Recorder(100, function.record)
    asked(recorder, function, images())
    with pytest.warns(RuntimeWarning, match="kernel by kernel.*: a value was fetched$"):
        asked(recorder, function, images())
    with warnings.catch_warnings(action="error"):
        for _ in range(3):
            asked(recorder, function, images(2))
    broken = Counted(TypeError("nobody expects this"))
    recorder = Recorder(100, broken.record)
    asked(recorder, broken, images())
    with pytest.raises(TypeError):
        asked(recorder, broken, images())


def test_threads_get_their_own_answers() -> None:
    function = Counted()
    recorder = Recorder(100, function.record)
    failed: list[int] = []

    def work(n: int) -> None:
        for step in range(30):
            given = torch.full((1, 1, 3, 2 + step % 2, 2), float(100 * n + step))
            with recorder.found(function, given, 1) as found:
                kept = found["twice"].clone()
            if not torch.equal(kept, 2 * given):
                failed.append(n)

    together(work, 4)
    assert failed == []
    assert sum(made.replays for made in function.made) >= 4 * 30 - 2 * 4


def together(work: object, count: int) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def mapped(engine: SceneEngine) -> SceneMemory:
    return map_taken(engine, take(Views.from_list(photos()), 42))


def one(size: tuple[int, int], seed: int, count: int = 1, whole: bool = False) -> Views:
    """Photos of one size; ``whole``: uint8."""
    drawn = torch.rand(1, count, 3, *size, generator=torch.Generator().manual_seed(seed))
    return Views.from_tensor((drawn * 255).to(torch.uint8) if whole else drawn)


def same(found: list[Answer], wanted: list[Answer]) -> None:
    """Bit for bit."""
    assert [a.index for a in found] == [b.index for b in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a.camera_from_world, b.camera_from_world)
        assert torch.equal(a.intrinsics, b.intrinsics)
        assert a.confidence == b.confidence
        assert (a.maps is None) == (b.maps is None)
        if a.maps is not None and b.maps is not None:
            assert torch.equal(a.maps.depth, b.maps.depth)
            assert torch.equal(a.maps.depth_confidence, b.maps.depth_confidence)
            assert torch.equal(a.maps.points, b.maps.points)


def roomy(precision: str = "fp32", device: str = "cpu", memory: str = "64G") -> SceneEngine:
    options = RunOptions(device, precision, memory=memory)
    return SceneEngine(engine_of(TTT).given, options)


def test_a_localizer_records_what_it_computes() -> None:
    """Here with buffers in place of a graph's: what the recorder hands out is sent off in time."""
    engine = roomy()
    scene, function = mapped(engine), Counted()
    plain, recorded = (Localizer(engine, scene) for _ in range(2))
    assert plain.recorder.record is None and plain.recorder.room == 0  # no CUDA device
    recorded.recorder = Recorder(8 * 2**30, function.record)
    for seed in range(4):
        for size in SIZES:
            views = one(size, seed)
            same(list(recorded.ask(views)), list(plain.ask(views)))
    assert [made.replays for made in function.made] == [3, 3]
    (group,) = one(SIZES[0], 5).groups
    weighted = replace(group, weight=torch.ones(1, 1, 2, 3))
    list(recorded.ask(Views((weighted,), 1)))
    assert [made.replays for made in function.made] == [3, 3]


def test_photos_in_any_order_keep_their_answers() -> None:
    engine = roomy()
    localizer = Localizer(engine, mapped(engine))
    views = one(SIZES[0], 0, 3)
    (group,) = views.groups
    turned = Views((ViewGroup(group.images.flip(1), (2, 1, 0)),), 3)
    by_index = sorted(localizer.ask(turned), key=lambda answer: answer.index)
    for a, b in zip(by_index, localizer.ask(views), strict=True):
        assert torch.allclose(a.camera_from_world, b.camera_from_world, atol=1e-5)


def test_recordings_have_a_part_of_the_memory() -> None:
    engine = roomy()
    localizer, function = Localizer(engine, mapped(engine)), Counted()
    size = SIZES[0]
    needed = localizer._needed(size, 4)
    held = Recorder(2**30, function.record)
    for _ in range(2):
        asked(held, function, images())
    localizer.recorder = held

    def within(budget: int) -> Localizer:
        options = replace(engine.options, memory=f"{budget}B")
        localizer.engine = SceneEngine(engine.given, options)
        return localizer

    assert within(needed + 2**30).chunk([size]) == 4
    assert within(needed + 2**30 - 2).chunk([size]) == 2
    assert len(held.kept) == 1
    # No chunk leaves that part free: then one photo may have it, and nothing is recorded.
    assert within(localizer._needed(size, 1)).chunk([size]) == 1
    assert len(held.kept) == 0
    for seed in range(3):
        list(localizer.ask(one(size, seed)))
    assert len(held.kept) == 0


@pytest.fixture
def _as_users_have_it() -> Iterator[None]:
    """The suite's deterministic mode would put torch's kernels in place of ours."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(True, warn_only=True)


@pytest.mark.gpu
@on_gpu
@pytest.mark.usefixtures("_as_users_have_it")
@pytest.mark.parametrize("spec", [TTT, LayerSpec("softmax"), LayerSpec("linear")], ids=label)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [QueryOptions(), QueryOptions(dense=False), QueryOptions(fast_head=True)],
    ids=["whole", "cameras", "fast"],
)
def test_a_replay_gives_the_kernels_bits(
    spec: LayerSpec, precision: str, options: QueryOptions
) -> None:
    engine = SceneEngine(engine_of(spec).given, RunOptions("cuda", precision))
    scene = mapped(engine)
    plain = Localizer(engine, scene, replace(options, record=False))
    recorded = Localizer(engine, scene, options)
    device = recorded.model.camera_head.empty_pose.device
    with warnings.catch_warnings(action="error", category=RuntimeWarning):
        for seed in range(4):
            for size in SIZES:
                for count, whole in ((1, False), (3, True)):
                    views = one(size, seed, count, whole)
                    views = views.to(device) if seed % 2 else views
                    same(list(recorded.ask(views)), list(plain.ask(views)))
    assert len(recorded.recorder.kept) == 4
    assert not torch.equal(
        next(recorded.ask(one(SIZES[0], 0))).camera_from_world,
        next(recorded.ask(one(SIZES[0], 1))).camera_from_world,
    )


@pytest.mark.gpu
@on_gpu
@pytest.mark.usefixtures("_as_users_have_it")
def test_a_recording_outlives_what_is_forgotten() -> None:
    """Tables that are kept for the next chunk may go, and their memory be used again."""
    engine = roomy("bf16", "cuda", "auto")
    scene = mapped(engine)
    plain = Localizer(engine, scene, QueryOptions(record=False))
    recorded = Localizer(engine, scene)
    for seed in range(2):
        list(recorded.ask(one(SIZES[0], seed)))
    assert len(recorded.recorder.kept) == 1
    wanted = list(plain.ask(one(SIZES[0], 2)))
    maps._known_embedding.cache_clear()
    device = recorded.model.camera_head.empty_pose.device
    for count in (2**n for n in range(6, 22)):
        assert bool(torch.full((count,), torch.nan, device=device).isnan().all())
    same(list(recorded.ask(one(SIZES[0], 2))), wanted)
    assert maps._known_embedding.cache_info().currsize == 0
    list(plain.ask(one(SIZES[0], 2)))
    assert maps._known_embedding.cache_info().currsize > 0


@pytest.mark.gpu
@on_gpu
@pytest.mark.usefixtures("_as_users_have_it")
@pytest.mark.parametrize("known", [True, False], ids=["recorded before", "recorded meanwhile"])
def test_threads_replay_their_own_photos(known: bool) -> None:
    """Photos of one at a time, of both sizes, by two threads; and a third that asks in chunks too
    large to be recorded."""
    engine = roomy("bf16", "cuda", "auto")
    scene = mapped(engine)
    plain = Localizer(engine, scene, QueryOptions(record=False))
    recorded = Localizer(engine, scene)
    asked = [[one(SIZES[n % 2], 10 * t + n) for n in range(6)] for t in range(2)]
    asked.append([one(SIZES[0], 99, PHOTOS + 4)])
    wanted = [[list(plain.ask(views)) for views in own] for own in asked]
    if known:
        for views in asked[0][:4]:
            list(recorded.ask(views))
        assert len(recorded.recorder.kept) == 2
    failed: list[BaseException] = []

    def work(t: int) -> None:
        try:
            for _ in range(10):
                for views, expected in zip(asked[t], wanted[t], strict=True):
                    same(list(recorded.ask(views)), expected)
        except BaseException as error:
            failed.append(error)

    with warnings.catch_warnings(action="error", category=RuntimeWarning):
        together(work, 3)
    assert failed == []
    assert len(recorded.recorder.kept) == 2


@pytest.mark.gpu
@on_gpu
@pytest.mark.usefixtures("_as_users_have_it")
def test_what_a_gpu_cannot_record_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fetching(Recall):
        def of(self, chunk: int, views: int) -> Tensor:
            found = super().of(chunk, views)
            float(found.sum())  # waits for the device, which no recording may
            return found

    engine = roomy("bf16", "cuda", "auto")
    scene = mapped(engine)
    plain = Localizer(engine, scene, QueryOptions(record=False))
    monkeypatch.setattr(localise_module, "Recall", Fetching)
    recorded = Localizer(engine, scene)
    same(list(recorded.ask(one(SIZES[0], 0))), list(plain.ask(one(SIZES[0], 0))))
    with pytest.warns(RuntimeWarning, match="kernel by kernel"):
        found = list(recorded.ask(one(SIZES[0], 1)))
    same(found, list(plain.ask(one(SIZES[0], 1))))
    assert len(recorded.recorder.kept) == 0
    for seed in range(3):
        same(list(recorded.ask(one(SIZES[1], seed))), list(plain.ask(one(SIZES[1], seed))))
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
