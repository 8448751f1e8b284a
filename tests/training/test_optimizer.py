"""Muon with AdamW as one optimizer; what decays; the learning rate's course."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vggt3.checks import DataError, UsageError
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.training import freezing
from vggt3.training.muon import Muon, MuonAndAdamW
from vggt3.training.optimizer import OptimizerOptions, build, parameter_groups

MUON = OptimizerOptions(method="muon", lr=1e-2)
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9")
ROUNDING = 5e-2
"""Of a step, relative: the iteration runs in bf16, on one matrix or on a stack of them."""


class Mixed(nn.Module):
    """A matrix, a convolution, a bias and a token."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.conv = nn.Linear(6, 4), nn.Conv2d(3, 3, 3, groups=3, bias=False)
        self.camera_token = nn.Parameter(torch.ones(1, 2, 1, 4))

    def loss(self, seed: int) -> torch.Tensor:
        x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
        out = self.flat(x).pow(2).mean() + self.conv(x).pow(2).mean()
        return out + (self.camera_token - 2).pow(2).sum()


def moved(optimizer: torch.optim.Optimizer, model: Mixed, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        model.loss(seed).backward()
        optimizer.step()


@needs_muon
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_muon_by_shape_is_torchs_one_by_one(decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 20), (20, 8), (5, 5), (8, 20)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    one = Muon(ours, lr=1e-2, weight_decay=decay)
    other = torch.optim.Muon(theirs, lr=1e-2, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    before = [p.detach().clone() for p in ours]
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for start, p, q in zip(before, ours, theirs, strict=True):
        assert float((p - q).detach().norm()) < ROUNDING * float((q - start).detach().norm())


def test_a_matrix_without_gradient_stays() -> None:
    moving, still = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    optimizer = Muon([moving, still], lr=0.1)
    moving.grad = torch.ones(3, 4)
    optimizer.step()
    assert torch.equal(still, torch.ones(3, 4)) and not torch.equal(moving, still)


def test_a_step_left_out_leaves_momentum_and_weights() -> None:
    one, other = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    kept, skipping = Muon([one], lr=0.1), Muon([other], lr=0.1)
    for value in (1.0, torch.nan, 2.0):
        other.grad = torch.full((3, 4), value)
        skipping.found_inf = (~other.grad.sum().isfinite()).float()
        skipping.step()
        if value == value:
            one.grad = other.grad.clone()
            kept.step()
        assert torch.equal(one, other)


def test_muon_moves_matrices_and_adamw_the_rest() -> None:
    model, other = Mixed(), Mixed()
    other.load_state_dict(model.state_dict())
    muon = Muon([other.flat.weight], lr=1e-2, weight_decay=0.05)
    groups = [
        {"params": [other.conv.weight], "weight_decay": 0.05},
        {"params": [other.flat.bias, other.camera_token], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    moved(build(model, MUON), model, range(3))
    for seed in range(3):
        other.zero_grad()
        other.loss(seed).backward()
        muon.step()
        adamw.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_saved_muon_goes_on_bit_for_bit() -> None:
    whole, broken = Mixed(), Mixed()
    broken.load_state_dict(whole.state_dict())
    moved(build(whole, MUON), whole, range(6))
    first = build(broken, MUON)
    moved(first, broken, range(3))
    again = build(broken, MUON)
    again.load_state_dict(first.state_dict())
    for group in again.param_groups:
        group["lr"] = 1e-2
    moved(again, broken, range(3, 6))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, broken.state_dict()[name]), name


def test_every_parameter_has_one_optimizer_and_one_learning_rate() -> None:
    model = VGGT3.build(TINY, "ttt_shortconv")
    names = {id(p): n for n, p in model.named_parameters()}
    made = build(model, MUON)
    assert isinstance(made, MuonAndAdamW)
    found = [[names[id(p)] for g in part.param_groups for p in g["params"]] for part in made.parts]
    assert sorted(found[0] + found[1]) == sorted(names.values())
    assert "aggregator.global_blocks.0.attn.qkv.weight" in found[0]
    assert not any("token" in name or name.endswith("bias") for name in found[0])
    before = {n: p.clone() for n, p in model.named_parameters()}
    for group in made.param_groups:
        group["lr"] = 0.0
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_the_encoder_takes_a_share_of_the_rate(method: str) -> None:
    model = VGGT3.build(TINY, "softmax")
    made = build(model, OptimizerOptions(method=method, lr_encoder=0.25))
    names = {id(p): n for n, p in model.named_parameters()}
    shares = {names[id(p)]: g["share"] for g in made.param_groups for p in g["params"]}
    assert sorted(shares) == sorted(names.values())
    for name, share in shares.items():
        assert share == (0.25 if name.startswith("encoder.") else 1.0), name
    assert made.param_groups[0]["share"] == 1.0, "whose learning rate is reported"
    state = made.state_dict()
    for share in (0.5, 1.0):  # the options', whatever was saved
        for group in state["param_groups"]:
            group.pop("share", None)
        again = build(model, OptimizerOptions(method=method, lr_encoder=share))
        again.load_state_dict(state)
        assert sorted({g["share"] for g in again.param_groups}) == sorted({share, 1.0})
    freezing.freeze(model, "all")
    with pytest.raises(DataError, match=r"optimizer's state must be of \d groups, got \d"):
        build(model, OptimizerOptions(method=method)).load_state_dict(state)


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_what_was_saved_without_fused_steps_goes_on_with_them(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, from a checkpoint of a CPU."""
    options = OptimizerOptions(method=method, lr=1e-3)

    def stepped(made: torch.optim.Optimizer, model: Mixed) -> None:
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.1)
        made.step()

    one, other = Mixed(), Mixed()
    before = build(one, options)
    stepped(before, one)
    plain = torch.optim.AdamW
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda *given, **told: plain(*given, **{**told, "fused": True})
    )
    after = build(other, options)
    after.load_state_dict(before.state_dict())
    after.found_inf = torch.ones(())  # type: ignore[attr-defined]
    stepped(after, other)
    after.found_inf = torch.zeros(())  # type: ignore[attr-defined]
    other.load_state_dict(one.state_dict())
    stepped(after, other)
    stepped(before, one)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'muon'"):
        OptimizerOptions(method="moon")


def test_tokens_norms_and_fast_weights_are_not_decayed() -> None:
    model = VGGT3.build(TINY, "ttt_mlp", initial="learned")
    names = {id(p): n for n, p in model.named_parameters()}
    decayed: list[torch.Tensor] = []
    rest: list[torch.Tensor] = []
    for group in parameter_groups(model, 0.05):
        (decayed if group["weight_decay"] else rest).extend(group["params"])
    assert all(p.dim() >= 2 for p in decayed)
    tokens = {"aggregator.camera_token", "encoder.class_token", "encoder.registers"}
    assert tokens <= {names[id(p)] for p in rest}
    assert "aggregator.global_blocks.0.attn.w1" in {names[id(p)] for p in rest}
    assert len(decayed) + len(rest) == len(names)


def test_the_learning_rate_rises_and_falls() -> None:
    options = OptimizerOptions(lr=1.0, warmup=10, lr_last=0.1)
    assert options.rate(0, 0.0) == pytest.approx(0.1)
    assert options.rate(9, 0.0) == pytest.approx(1.0)
    assert options.rate(500, 0.5) == pytest.approx(0.55)
    assert options.rate(999, 1.0) == pytest.approx(0.1)
    assert options.rate(1, 0.0, steps=20) == pytest.approx(1.0), "a tenth of a short run"
