"""Steps: what learns does, what is frozen does not, and a scene can be learned by heart."""

from __future__ import annotations

import pytest
import torch

from tests.training.conftest import OneScene, quiet_trainer
from vggt3.attention.registry import BUILT_IN
from vggt3.checks import UsageError
from vggt3.data.procedural.scene import SceneBatch
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.training.freezing import learns, start_adapter
from vggt3.training.module import LearningOptions, Training
from vggt3.training.optimizer import OptimizerOptions, parameter_groups


def fit(module: Training, scene: SceneBatch, steps: int) -> None:
    quiet_trainer(steps).fit(module, OneScene(scene))


def test_a_scene_is_learned_by_heart(scene: SceneBatch) -> None:
    module = Training(
        VGGT3.build(TINY, "softmax"),
        LearningOptions(train="all"),
        OptimizerOptions(lr=2e-3, warmup=3, lr_last=0.3),
    )
    module.train()
    stages, maps = module.predict_batch(scene)
    before, _ = module.loss(scene, stages, maps)
    fit(module, scene, 30)
    stages, maps = module.predict_batch(scene)
    after, _ = module.loss(scene, stages, maps)
    assert after["camera"] < 0.35 * before["camera"]
    assert after["depth"] < 0.5 * before["depth"]
    assert after["points"] < 0.6 * before["points"]


@pytest.mark.parametrize("backend", sorted(BUILT_IN))
@pytest.mark.parametrize("part", ["adapter", "all"])
def test_frozen_tensors_stay_as_they_are(scene: SceneBatch, backend: str, part: str) -> None:
    module = Training(
        VGGT3.build(TINY, backend), LearningOptions(train=part), OptimizerOptions(lr=1e-2)
    )
    before = {name: t.clone() for name, t in module.model.state_dict().items()}
    fit(module, scene, 3)
    parameters = dict(module.model.named_parameters())
    for name, tensor in module.model.state_dict().items():
        learned = name in parameters and learns(name, part)
        assert torch.equal(before[name], tensor) != learned, name
        if name in parameters and not learned:
            assert parameters[name].grad is None


def test_what_is_frozen_stays_in_evaluation_mode() -> None:
    module = Training(VGGT3.build(TINY, "ttt_mlp"), LearningOptions(train="adapter"))
    module.train()
    assert not module.model.encoder.training
    assert not module.model.depth_head.training
    assert module.model.aggregator.block(0).attn.training


@pytest.mark.parametrize("backend", ["ttt_mlp", "ttt_shortconv", "linear"])
def test_a_new_adapter_begins_at_softmax(backend: str) -> None:
    softmax, other = VGGT3.build(TINY, "softmax"), VGGT3.build(TINY, backend)
    start_adapter(other, softmax.state_dict())
    theirs, ours = softmax.state_dict(), other.state_dict()
    for layer in range(TINY.layers):
        for name in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias"):
            key = f"aggregator.global_blocks.{layer}.attn.{name}"
            assert torch.equal(theirs[key], ours[key])


def test_checkpointing_changes_nothing(scene: SceneBatch) -> None:
    model = VGGT3.build(TINY, "ttt_shortconv")
    found = []
    for checkpointing in (False, True):
        module = Training(model, LearningOptions(train="all", checkpointing=checkpointing))
        module.train()
        model.zero_grad()
        _, loss = module.loss(scene, *module.predict_batch(scene))
        loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_tokens_and_norms_are_not_decayed() -> None:
    model = VGGT3.build(TINY, "softmax")
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, rest = parameter_groups(model, 0.05)
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert "aggregator.camera_token" in {names[id(p)] for p in rest["params"]}
    assert len(decayed["params"]) + len(rest["params"]) == len(names)


def test_the_learning_rate_rises_and_falls() -> None:
    options = OptimizerOptions(lr=1.0, warmup=10, lr_last=0.1)
    assert options.rate(0, 0.0) == pytest.approx(0.1)
    assert options.rate(9, 0.0) == pytest.approx(1.0)
    assert options.rate(500, 0.5) == pytest.approx(0.55)
    assert options.rate(999, 1.0) == pytest.approx(0.1)
    assert options.rate(1, 0.0, steps=20) == pytest.approx(1.0), "a tenth of a short run"


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'adapter'"):
        Training(VGGT3.build(TINY, "softmax"), LearningOptions(train="adaptor"))
