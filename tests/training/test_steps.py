"""Steps: what learns does, what is frozen does not, and a scene can be learned by heart."""

from __future__ import annotations

from typing import Any

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
from vggt3.training.optimizer import OptimizerOptions


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


def test_the_encoder_moves_by_its_share_of_the_rate(scene: SceneBatch) -> None:
    options = OptimizerOptions(lr=1e-2, lr_encoder=0.0, warmup=0)
    module = Training(VGGT3.build(TINY, "softmax"), LearningOptions(train="encoder"), options)
    before = {name: t.clone() for name, t in module.model.named_parameters()}
    fit(module, scene, 2)
    for name, tensor in module.model.named_parameters():
        still = name.startswith("encoder.")
        assert torch.equal(before[name], tensor) == still, name
        if still and tensor.numel():
            assert tensor.grad is not None and bool(tensor.grad.any()), "it could have moved"


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


def kept_for_backward(part: str, scene: SceneBatch) -> tuple[int, set[str]]:
    """Bytes that the forward pass keeps, and the modules whose outputs carry a gradient."""
    model = VGGT3.build(TINY, "ttt_shortconv")
    module = Training(model, LearningOptions(train=part))
    module.train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    carrying: set[str] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def look(name: str) -> Any:
        def seen(module: Any, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor) and first.requires_grad:
                carrying.add(name)

        return seen

    for name, child in model.named_modules():
        child.register_forward_hook(look(name))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module.loss(scene, *module.predict_batch(scene))[1]
    assert loss.requires_grad
    return sum(kept.values()), carrying


def test_an_adapter_s_backward_pass_ends_where_the_adapter_begins(scene: SceneBatch) -> None:
    adapter, carrying = kept_for_backward("adapter", scene)
    everything, everywhere = kept_for_backward("encoder", scene)
    before = ("encoder", "encoder.blocks.0", "aggregator.frame_blocks.0")
    after = ("aggregator.frame_blocks.1", "camera_head", "depth_head")
    assert everywhere.issuperset(before)
    assert not carrying.intersection(before), "nothing there is computed backwards"
    assert adapter < 0.95 * everything, (adapter, everything)
    assert any(name.startswith(after[0]) for name in carrying)


def test_what_is_frozen_has_no_gradient_and_no_optimizer_state(scene: SceneBatch) -> None:
    module = Training(VGGT3.build(TINY, "ttt_shortconv"), LearningOptions(train="adapter"))
    trainer = quiet_trainer(2)
    trainer.fit(module, OneScene(scene))
    learning = [p for p in module.model.parameters() if p.requires_grad]
    frozen = [p for p in module.model.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)
    state = trainer.optimizers[0].state
    assert {id(p) for p in state} == {id(p) for p in learning}
    held = sum(t.nbytes for s in state.values() for n, t in s.items() if n != "step")
    assert held == 2 * sum(p.nbytes for p in learning)


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'adapter'"):
        Training(VGGT3.build(TINY, "softmax"), LearningOptions(train="adaptor"))
