"""An adapter taught by the backbone's softmax attention."""

from __future__ import annotations

import pytest
import torch

from tests.training.conftest import OneScene, quiet_trainer
from vggt3.checks import UsageError
from vggt3.data.procedural.scene import SceneBatch
from vggt3.model.config import TINY
from vggt3.model.encoder import Encoder
from vggt3.model.vggt3 import VGGT3
from vggt3.training.freezing import start_adapter
from vggt3.training.module import LearningOptions, Training
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.teacher import Lesson, Teacher, distance
from vggt3.types import Views

CPU = torch.device("cpu")


def pair(backend: str) -> tuple[VGGT3, Teacher]:
    """A softmax model as teacher, and one of the same backbone that begins from it."""
    softmax, pupil = VGGT3.build(TINY, "softmax"), VGGT3.build(TINY, backend)
    for layer in range(TINY.layers):  # 0.01 would hide what attention does
        torch.nn.init.constant_(softmax.aggregator.block(layer).ls1.gamma, 0.7)
    kept = {n: t for n, t in softmax.state_dict().items() if ".attn." not in n or "frame" in n}
    pupil.load_state_dict(kept, strict=False)
    pupil.encoder.load_state_dict(softmax.encoder.state_dict())
    start_adapter(pupil, softmax.state_dict())
    teacher = Teacher(softmax)
    teacher.settle(CPU)
    return pupil, teacher


def overheard(pupil: VGGT3, views: Views) -> Lesson:
    lesson = Lesson()
    pupil.read(views, lesson.conduct(Training(pupil).conduct))
    return lesson


def test_the_teacher_agrees_with_its_own_attention(scene: SceneBatch) -> None:
    pupil, teacher = pair("softmax")
    views = Views.from_tensor(scene.images)
    assert teacher.distance(views, overheard(pupil, views)) < 1e-9


def test_it_reads_the_pupil_s_patches(scene: SceneBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    pupil, teacher = pair("ttt_mlp")
    views = Views.from_tensor(scene.images)
    lesson = overheard(pupil, views)
    assert teacher.model is not None
    wanted = teacher.model.read(views).features[0]

    def never(*args: object) -> None:
        raise AssertionError("the images are encoded twice")

    monkeypatch.setattr(Encoder, "forward", never)
    found = teacher.tokens(views, lesson)
    for x, y in zip(found, wanted, strict=True):
        assert float((x - y).norm() / y.norm()) < 1e-5


def test_distance_is_squared_over_the_spread_and_camera_tokens_count_half() -> None:
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 3, 5, 4, generator=draw, dtype=torch.float64)
    mean = wanted.mean(dim=(0, 1), keepdim=True).expand_as(wanted)
    assert float(distance([wanted], [wanted])) == 0
    assert float(distance([mean], [wanted])) == pytest.approx(1)
    half = wanted.clone()
    half[:, :, 0] = mean[:, :, 0]
    assert float(distance([half], [wanted])) == pytest.approx(0.5)
    nearer = mean + 0.5 * (wanted - mean)
    assert float(distance([nearer, wanted], [wanted, wanted])) == pytest.approx(0.125)


def test_only_the_adapter_is_pulled_and_it_comes_nearer(scene: SceneBatch) -> None:
    torch.manual_seed(0)
    pupil, teacher = pair("ttt_mlp")
    module = Training(
        pupil,
        LearningOptions(teacher=100.0),
        OptimizerOptions(lr=3e-3, warmup=2, lr_last=0.3),
        teacher=teacher,
    )
    before = {name: t.clone() for name, t in teacher.given.state_dict().items()}
    views = Views.from_tensor(scene.images)
    first = float(module.terms(scene)["teacher"].detach())
    alone = Training(pupil).terms(scene)
    taught = module.terms(scene)
    assert float((taught["loss"] - alone["loss"]).detach()) == pytest.approx(100 * first, rel=1e-3)
    quiet_trainer(25).fit(module, OneScene(scene))
    assert float(teacher.distance(views, overheard(pupil, views)).detach()) < 0.7 * first
    for name, tensor in teacher.given.state_dict().items():
        assert torch.equal(before[name], tensor), name
    assert not any("teacher" in name for name, _ in module.named_parameters())


@pytest.mark.parametrize(("weight", "part"), [(1.0, "all"), (-1.0, "adapter")])
def test_a_moving_backbone_has_no_teacher(weight: float, part: str) -> None:
    with pytest.raises(UsageError, match=r"--learning\.teacher"):
        LearningOptions(train=part, teacher=weight)
