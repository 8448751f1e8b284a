"""Recall is what reading with one's own keys gives, held to one's own values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.attention.variants import HEADS, SPECS, WIDTH, Case, draw_case, label
from vggt3.attention.base import Backend, Projection
from vggt3.attention.memory import Delta, State
from vggt3.attention.registry import LayerSpec


def settled(attn: Backend, case: Case) -> State:
    plan = attn.survey(case.tokens.mean(dim=2))
    projection = attn.project(case.tokens, case.planned(plan).context)
    state, again = attn.begin(case.tokens.shape[1], 1, case.tokens.device, plan), True
    while again:
        state, again = attn.settle(state, attn.write(projection, state))
    return state


def own_keys(projection: Projection) -> Projection:
    """A projection whose queries are its keys."""
    shape = projection["q"].shape
    return replace(projection, tensors={**projection.tensors, "q": projection["k"].reshape(shape)})


@pytest.mark.parametrize("spec", SPECS, ids=label)
@torch.no_grad()
def test_recall_is_the_cosine_of_what_keys_find_with_values(spec: LayerSpec) -> None:
    attn = spec.build(WIDTH, HEADS, 0).double().eval()
    attn.proj.weight.copy_(torch.eye(WIDTH))
    attn.proj.bias.zero_()
    state = settled(attn, draw_case(3))
    new = draw_case(2)
    projection = attn.project(new.tokens, new.context)
    found = attn.recall(projection, state)
    if found is None:
        pytest.skip(f"{spec.name} does not recall")
    read = attn.read(own_keys(projection), state).unflatten(-1, (HEADS, -1))  # [B, V, P, H, D]
    values = projection["v"].reshape(1, HEADS, 2, -1, WIDTH // HEADS).permute(0, 2, 3, 1, 4)
    expected = torch.cosine_similarity(read, values, dim=-1).mean(-1)
    assert found.shape == (1, 2, new.context.tokens)
    assert torch.allclose(found.double(), expected, atol=1e-6)


@torch.no_grad()
def test_what_alone_was_written_is_recalled_whole() -> None:
    for name in ("softmax", "linear"):
        attn = LayerSpec(name).build(WIDTH, HEADS, 0).double().eval()
        case = draw_case(1, grid=(1, 1))
        one = Case(case.tokens[:, :, :1].expand_as(case.tokens), case.context)
        recall = attn.recall(attn.project(one.tokens, one.context), settled(attn, one))
        assert recall is not None
        assert torch.allclose(recall, torch.ones_like(recall), atol=1e-4)


@torch.no_grad()
def test_fast_weights_recall_what_they_learned_better_than_what_they_did_not() -> None:
    attn = LayerSpec("ttt_mlp", (("sweeps", 3),)).build(WIDTH, HEADS, 0).double().eval()
    known, new = draw_case(3, grid=(4, 5)), draw_case(3, grid=(4, 5))
    state = settled(attn, known)
    own, other = (attn.recall(attn.project(c.tokens, c.context), state) for c in (known, new))
    assert own is not None
    assert other is not None
    assert own.mean() > other.mean() + 0.1


@torch.no_grad()
def test_fast_weights_step_by_share() -> None:
    """A share of 1 is a sweep more, of nearly 0 nothing; columns keep their norms."""
    attn = LayerSpec("ttt_shortconv").build(WIDTH, HEADS, 0).double().eval()
    state, new = settled(attn, draw_case(3)), draw_case(2)
    delta = attn.write(attn.project(new.tokens, new.context), state)
    whole, _ = attn.settle(state, delta)
    assert torch.equal(attn.extend(state, delta, 1.0)["w1"], whole["w1"])
    gap = [float((attn.extend(state, delta, s)["w0"] - state["w0"]).norm()) for s in (0, 0.1, 1)]
    assert gap[0] < 1e-4 < gap[1] < gap[2]
    norms = attn.extend(state, delta, 0.3)["w2"].norm(dim=-2, keepdim=True)
    assert torch.allclose(norms, state["norm2"].expand_as(norms), rtol=1e-4)


def test_a_memory_of_another_kind_must_say_how_it_grows() -> None:
    attn = LayerSpec("linear").build(WIDTH, HEADS, 0)
    with pytest.raises(ValueError, match="linear must define extend"):
        attn.extend(State({"mean": torch.zeros(1, 2)}), Delta({"total": torch.ones(1, 2)}), 0.5)
