"""What every backend promises, one layer at a time: its equation, purity, deltas, weights, states.

The promises that need a whole model (chunks, groups, ranks) are in test_scene and test_ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.attention.references import EQUATIONS, reference
from tests.attention.variants import (
    SPECS,
    Case,
    answer,
    attend,
    begin,
    build,
    describe,
    draw_case,
    label,
    relative,
    remember,
    survey,
    tensors_of,
)
from vggt3.attention.base import Backend
from vggt3.attention.kernels import flops
from vggt3.attention.memory import Delta, State
from vggt3.attention.registry import LayerSpec
from vggt3.attention.rope import Rope

every_backend = pytest.mark.parametrize("spec", SPECS, ids=label)
EXACT = 1e-11


def some_weights(case: Case) -> Tensor:
    """Write weights from 0 to 1, both ends included."""
    weight = torch.rand(case.tokens.shape[:3], dtype=case.tokens.dtype)
    weight[:, :, 1] = 0.0
    weight[:, :, 2] = 1.0
    return weight


@every_backend
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_equals_its_equation(spec: LayerSpec, weighted: bool) -> None:
    if spec.name not in EQUATIONS:
        pytest.skip(f"no equation is known for {spec.name}")
    backend, case = build(spec), draw_case(batch=2)
    case = case.weighted(some_weights(case)) if weighted else case
    expected = reference(spec, backend, case, describe(case))
    assert relative(attend(backend, survey(backend, case)), expected) < EXACT


class Attending(nn.Module):
    """A backend's steps as one function of its parameters."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, tokens: Tensor, weight: Tensor, case: Case) -> Tensor:
        return attend(self.backend, Case(tokens, case.weighted(weight).context))


@every_backend
def test_gradients(spec: LayerSpec) -> None:
    """With respect to tokens, write weights and parameters, through every step.

    The parameters' Jacobian is compared along random directions: entry by entry takes minutes.
    """
    case = draw_case(3, grid=(1, 2), width=8)
    backend = build(spec, width=8)
    case = survey(backend, case)
    names = [name for name, _ in backend.named_parameters()]
    weight = torch.rand(case.tokens.shape[:3], dtype=torch.float64) + 0.5

    def function(tokens: Tensor, weight: Tensor, *parameters: Tensor) -> Tensor:
        named = {f"backend.{name}": p for name, p in zip(names, parameters, strict=True)}
        found: Tensor = torch.func.functional_call(
            Attending(backend), named, (tokens, weight, case)
        )
        return found

    leaves = [case.tokens, weight, *(p.detach() for p in backend.parameters())]
    inputs = [leaf.clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True, check_undefined_grad=False)
    parameters = [leaf.detach() for leaf in inputs[2:]]
    assert torch.autograd.gradcheck(
        lambda tokens, weight: function(tokens, weight, *parameters),
        inputs[:2],
        check_undefined_grad=False,
    )


class Watch:
    """Remembers tensors, and says which of them were changed since."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Tensor, int, Tensor]] = []

    def over(self, name: str, thing: object) -> None:
        for key, tensor in tensors_of(thing).items():
            seen = (f"{name}.{key}", tensor, tensor._version, tensor.detach().clone())
            self.seen.append(seen)

    def changed(self) -> list[str]:
        return [
            name
            for name, tensor, version, value in self.seen
            if tensor._version != version or not torch.equal(tensor, value)
        ]


@every_backend
def test_nothing_is_mutated(spec: LayerSpec) -> None:
    backend, case = build(spec), draw_case()
    case = survey(backend, case.weighted(some_weights(case)))
    watch = Watch()
    watch.over("tokens", case.tokens)
    watch.over("context", case.context)
    for name, tensor in backend.state_dict().items():
        watch.over(name, tensor)
    attributes = {key: id(value) for key, value in vars(backend).items()}
    state, again = begin(backend, case), True
    watch.over("state", state)
    projection = backend.project(case.tokens, case.context)
    watch.over("projection", projection)
    while again:
        delta = backend.write(projection, state)
        watch.over("delta", delta)
        assert watch.changed() == []
        state, again = backend.settle(state, delta)
        watch.over("state", state)
        assert watch.changed() == []
    for _ in range(2):
        backend.read(projection, state)
    assert watch.changed() == []
    assert {key: id(value) for key, value in vars(backend).items()} == attributes


@every_backend
def test_two_scenes_are_open_at_once(spec: LayerSpec) -> None:
    backend = build(spec)
    here, there = (survey(backend, draw_case()) for _ in range(2))
    expected = attend(backend, here)
    projections = [backend.project(case.tokens, case.context) for case in (here, there)]
    states, again = [begin(backend, here), begin(backend, there)], True
    while again:
        deltas = [backend.write(p, s) for p, s in zip(projections, states, strict=True)]
        settled = [backend.settle(s, d) for s, d in zip(states, deltas, strict=True)]
        states, again = [state for state, _ in settled], settled[0][1]
    backend.read(projections[1], states[1])
    assert torch.equal(backend.read(projections[0], states[0]), expected)


def after_one_sweep(backend: Backend, case: Case) -> State:
    """A state that is not the first one, where the backend has such."""
    state = begin(backend, case)
    return backend.settle(state, backend.write(backend.project(case.tokens, case.context), state))[
        0
    ]


@every_backend
@pytest.mark.parametrize("sweep", [1, 2])
def test_deltas_add(spec: LayerSpec, sweep: int) -> None:
    backend, case = build(spec), draw_case(4, batch=2)
    case = survey(backend, case.weighted(some_weights(case)))
    state = begin(backend, case) if sweep == 1 else after_one_sweep(backend, case)

    def write(places: list[int]) -> Delta:
        picked = case.pick(places)
        return backend.write(backend.project(picked.tokens, picked.context), state)

    whole, parts = write([0, 1, 2, 3]), [write([0]), write([1, 2]), write([3])]
    for added in (parts[0] + parts[1] + parts[2], Delta.total(parts)):
        assert tensors_of(added).keys() == tensors_of(whole).keys()
        for name, tensor in tensors_of(whole).items():
            torch.testing.assert_close(tensors_of(added)[name], tensor, rtol=EXACT, atol=EXACT)
    backwards = backend.settle(state, parts[2] + parts[1] + parts[0])[0]
    forwards = backend.settle(state, whole)[0]
    found, expected = answer(backend, case, backwards), answer(backend, case, forwards)
    assert relative(found, expected) < EXACT


@every_backend
def test_the_delta_of_no_views_is_zero(spec: LayerSpec) -> None:
    backend, case = build(spec), draw_case(batch=2)
    case = survey(backend, case.weighted(some_weights(case)))
    nobody, state = case.pick([]), begin(backend, case)
    zero = backend.write(backend.project(nobody.tokens, nobody.context), state)
    delta = backend.write(backend.project(case.tokens, case.context), state)
    assert all(not tensor.any() for tensor in zero.sums.values())
    assert all(tensor.shape[1] == 0 for tensor in zero.lists.values())
    for added in (zero + delta, delta + zero):
        assert all(torch.equal(t, tensors_of(delta)[k]) for k, t in tensors_of(added).items())
    settled, _ = backend.settle(state, delta)
    assert answer(backend, nobody, settled).shape == (2, 0, *case.tokens.shape[2:])


@every_backend
def test_weight_zero_is_absence(spec: LayerSpec) -> None:
    """A view of weight 0 is not there; a token of weight 0 may hold anything."""
    backend = build(spec)
    case = survey(backend, draw_case(4, batch=2))
    weight = torch.rand(case.tokens.shape[:3], dtype=torch.float64) + 0.1
    weight[:, 1] = 0.0
    case = case.weighted(weight)
    expected = answer(backend, case, remember(backend, [case.pick([0, 2, 3])], 4))
    assert relative(attend(backend, case), expected) < EXACT
    weight[:, 2, 1] = 0.0  # a register token: a convolution lets patches speak of each other
    other = case.tokens.clone()
    other[:, 2, 1] = 100 * torch.randn_like(other[:, 2, 1])
    found = remember(backend, [Case(other, case.context)], 4)
    expected = answer(backend, case, remember(backend, [case], 4))
    assert relative(answer(backend, case, found), expected) < EXACT


@every_backend
def test_weight_two_is_a_duplicate(spec: LayerSpec) -> None:
    backend, case = build(spec), draw_case(3)
    weight = torch.ones(case.tokens.shape[:3], dtype=torch.float64)
    weight[:, 1] = 2.0
    found = remember(backend, [case.weighted(weight)], 4)
    expected = remember(backend, [case, case.pick([1])], 4)
    assert relative(answer(backend, case, found), answer(backend, case, expected)) < EXACT


@every_backend
def test_a_state_is_saved_moved_and_measured(spec: LayerSpec, tmp_path: Path) -> None:
    backend, case = build(spec, dtype=torch.float32), draw_case(batch=2, dtype=torch.float32)
    case = survey(backend, case)
    state = remember(backend, [case], 3)
    assert state.nbytes == sum(len(bytes_of(tensor)) for tensor in state.tensors.values())
    assert all(type(number) is int for number in state.numbers.values())
    assert all(t.is_meta and t.shape == state[k].shape for k, t in state.to("meta").tensors.items())
    save_file(
        {name: tensor.contiguous() for name, tensor in state.tensors.items()},
        tmp_path / "state.safetensors",
        {name: str(number) for name, number in state.numbers.items()},
    )
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        metadata = file.metadata() or {}
        loaded = State(
            {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
            {name: int(metadata[name]) for name in state.numbers},
            state.bounded,
        )
    assert loaded.numbers == state.numbers
    expected = answer(backend, case, state)
    assert torch.equal(answer(build_like(backend, spec), case, loaded), expected)


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def build_like(backend: Backend, spec: LayerSpec) -> Backend:
    """Another module with the same weights: a state belongs to no module."""
    other = spec.build(backend.width, backend.heads, backend.layer).eval()
    other.load_state_dict(backend.state_dict(), strict=True)
    return other


@every_backend
def test_claims_about_growth(spec: LayerSpec) -> None:
    """Twice the views: twice the operations at most iff linear, the same bytes iff bounded."""
    backend = build(spec, dtype=torch.float32)
    counts, states = [], []
    for views in (8, 16):
        case = survey(backend, draw_case(views, dtype=torch.float32))
        with torch.no_grad(), flops.counter() as counted:
            states.append(remember(backend, [case], views))
            answer(backend, case, states[-1])
        counts.append(counted.get_total_flops())
    assert counts[0] > 0
    assert (counts[1] <= 2 * counts[0]) == backend.linear, counts
    for state in states:
        assert (states[0].nbytes == states[1].nbytes) == state.bounded


@every_backend
@pytest.mark.parametrize("how", ["autocast", "parameters"])
def test_bf16_is_close(spec: LayerSpec, how: str) -> None:
    backend, case = build(spec, dtype=torch.float32), draw_case(4, dtype=torch.float32)
    case = survey(backend, case.weighted(some_weights(case)))
    expected = attend(backend, case)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            state = remember(backend, [case], 4)
            found = answer(backend, case, state)
    else:
        low, brief = backend.to(torch.bfloat16), Case(case.tokens.bfloat16(), case.context)
        state = remember(low, [brief], 4)
        found = answer(low, brief, state)
    assert found.dtype == torch.bfloat16
    assert relative(found.float(), expected) < 3e-2
    if state.bounded and not spec.name.startswith("softmax"):
        assert all(tensor.dtype == torch.float32 for tensor in state.tensors.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_backend
@pytest.mark.parametrize("low", [False, True], ids=["float32", "autocast"])
def test_a_gpu_says_the_same(spec: LayerSpec, low: bool) -> None:
    gpu = torch.device(torch.cuda.current_device())
    backend, case = build(spec, dtype=torch.float32), draw_case(4, dtype=torch.float32)
    case = survey(backend, case.weighted(some_weights(case)))
    expected, context = attend(backend, case), case.context
    moved = Case(
        case.tokens.to(gpu),
        replace(
            context,
            rope=Rope(context.rope.cos.to(gpu), context.rope.sin.to(gpu)),
            weight=None if context.weight is None else context.weight.to(gpu),
            plan=None if context.plan is None else context.plan.to(gpu),
        ),
    )
    with torch.autocast(gpu.type, torch.bfloat16, enabled=low):
        found = attend(backend.to(gpu), moved)
    assert relative(found.float().cpu(), expected) < (3e-2 if low else 1e-4)


@every_backend
def test_training_starts_from_softmax(spec: LayerSpec) -> None:
    """qkv and proj are those of the softmax layer, and the gradient reaches every parameter."""
    softmax, backend = build(LayerSpec("softmax")), build(spec)
    backend.start_from(softmax.state_dict())
    for name in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias"):
        assert torch.equal(backend.get_parameter(name), softmax.get_parameter(name)), name
    case = survey(backend, draw_case())
    attend(backend.train(), case).square().sum().backward()
    for name, parameter in backend.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_a_wrong_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's own test: it notices a fast-weight gradient that forgets the rates."""
    from vggt3.attention import fast_weights

    right: Callable[..., object] = fast_weights.gradient
    monkeypatch.setattr(
        fast_weights, "gradient", lambda k, v, rates, w: right(k, v, torch.ones_like(rates), w)
    )
    with pytest.raises(AssertionError):
        test_equals_its_equation(LayerSpec("ttt_mlp"), weighted=False)
