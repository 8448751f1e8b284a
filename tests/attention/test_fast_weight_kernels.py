"""The Triton kernels of the fast weights against the equations: interpreted on a CPU, compiled on
a GPU."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.attention.variants import SPECIAL, Case, attend, draw_case, relative
from vggt3 import checks
from vggt3.attention import cost, fast_weights
from vggt3.attention.fast_weights import Weights
from vggt3.attention.kernels import fast_weights as kernels
from vggt3.attention.kernels import flops
from vggt3.attention.kernels.fast_weights import Call, choose
from vggt3.attention.registry import LayerSpec
from vggt3.attention.rope import Rope
from vggt3.attention.ttt_mlp import TTTMLP

pytest.importorskip("triton")
from vggt3.attention.kernels import fast_weights_ops as ops

GPU = torch.cuda.is_available()
PLACE = torch.device(torch.cuda.current_device() if GPU else "cpu")
LIMITS = {torch.float32: 1e-5 if GPU else 3e-6, torch.bfloat16: 1e-2}
"""Relative L2 error: products of fp32 (on a GPU in three TF32 parts), and of bf16."""

pytestmark = pytest.mark.skipif(
    kernels.why_not_triton(Call(PLACE, torch.float32, 64, 256)) is not None,
    reason="the kernels run neither here nor in the interpreter",
)

Drawn = tuple[Tensor, Tensor, Tensor, Weights]


def draw(
    width: int = 32,
    hidden: int = 64,
    count: int = 19,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
) -> Drawn:
    """k, v, rates laid out as a projection is, tokens before heads; weights as they start."""
    heads = 1 if width > 32 else 2
    k, v = (
        torch.nn.functional.normalize(torch.randn(batch, count, heads, width), dim=-1)
        .to(PLACE, dtype)
        .transpose(1, 2)
        for _ in range(2)
    )
    rates = torch.rand(batch, count, 3, heads, device=PLACE).permute(0, 3, 1, 2)
    shapes = ((width, hidden), (hidden, width), (width, hidden))
    drawn = (torch.randn(batch, heads, *s, device=PLACE) * (2 / s[0]) ** 0.5 for s in shapes)
    return k, v, rates, Weights(*drawn)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


def wide(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().double().requires_grad_() for x in tensors]


def hold(
    found: list[Tensor], expected: list[Tensor], given: list[Tensor], exact: list[Tensor]
) -> None:
    """Values and the gradient of every input are the equation's in float64."""
    limit = LIMITS[given[0].dtype]
    for got, wanted in zip(found, expected, strict=True):
        assert relative(got.double(), wanted) < limit
    pulls = [torch.randn_like(x) for x in found]
    grads = torch.autograd.grad(found, given, pulls)
    wanted_grads = torch.autograd.grad(expected, exact, [p.double() for p in pulls])
    for x, got, wanted in zip(given, grads, wanted_grads, strict=True):
        assert got.dtype == x.dtype
        assert relative(got.double(), wanted) < limit


SIZES = [
    (32, 64, 19, torch.float32),
    (64, 64, 17, torch.float32),
    (128, 128, 5, torch.float32),
    (32, 32, 67, torch.bfloat16),
]
if GPU:
    SIZES += [(w, 4 * w, n, t) for w in (32, 64, 128) for n in (33, 4097) for t in LIMITS]


@pytest.mark.parametrize(("width", "hidden", "count", "dtype"), SIZES)
def test_sums_equal_the_equation(width: int, hidden: int, count: int, dtype: torch.dtype) -> None:
    k, v, rates, weights = draw(width, hidden, count, dtype)
    given, exact = leaves(k, v, rates, *weights), wide(k, v, rates, *weights)
    found = kernels.gradient(*given[:3], Weights(*given[3:]), kernel="triton")
    assert all(g.dtype == torch.float32 for g in found)
    expected = fast_weights.gradient(*exact[:3], Weights(*exact[3:]))
    hold(list(found), list(expected), given, exact)


@pytest.mark.parametrize(("width", "hidden", "count", "dtype"), SIZES)
def test_read_equals_the_equation(width: int, hidden: int, count: int, dtype: torch.dtype) -> None:
    q, _, _, weights = draw(width, hidden, count, dtype)
    given, exact = leaves(q, *weights), wide(q, *weights)
    found = kernels.apply(given[0], Weights(*given[1:]), kernel="triton")
    assert found.dtype == dtype
    hold([found], [fast_weights.apply(exact[0], Weights(*exact[1:]))], given, exact)


def test_any_layout_and_weights_shared_by_a_batch() -> None:
    """Rows that are not contiguous, and one scene's weights for every sequence of a batch."""
    k, v, rates, weights = draw(batch=2)
    one = Weights(*(w[:1].detach().requires_grad_() for w in weights))
    scattered = k.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert scattered.stride(-1) != 1
    found, expected = (
        kernels.gradient(x, v, rates, one, kernel=name)
        for x, name in ((scattered, "triton"), (k, "torch"))
    )
    read, answer = (kernels.apply(scattered, one, kernel=name) for name in ("triton", "torch"))
    for got, wanted in zip((*found, read), (*expected, answer), strict=True):
        assert relative(got, wanted) < LIMITS[torch.float32]
    (got,) = torch.autograd.grad(read.square().sum(), [one.w1])
    (wanted,) = torch.autograd.grad(answer.square().sum(), [one.w1])
    assert got.shape == one.w1.shape and relative(got, wanted) < LIMITS[torch.float32]


def test_an_empty_chunk() -> None:
    """It writes nothing and reads nothing, and still depends on what it was given."""
    k, v, rates, weights = draw(count=0)
    given = leaves(k, v, rates, *weights)
    found = kernels.gradient(*given[:3], Weights(*given[3:]), kernel="triton")
    assert all(g.shape == w.shape and not g.any() for g, w in zip(found, weights, strict=True))
    read = kernels.apply(given[0], Weights(*given[3:]), kernel="triton")
    assert read.shape == k.shape
    total = sum(g.sum() for g in found) + read.sum()
    for got, x in zip(torch.autograd.grad(total, given), given, strict=True):
        assert got.shape == x.shape and not got.any()


def test_parts_add_and_runs_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    k, v, rates, weights = draw(hidden=32, count=37)
    expected = fast_weights.gradient(k, v, rates, weights)
    torch.use_deterministic_algorithms(False)
    try:
        for programs in (1, 1024):
            monkeypatch.setattr(ops, "PROGRAMS", programs)
            first, again = (
                kernels.gradient(k, v, rates, weights, kernel="triton") for _ in range(2)
            )
            for got, twice, wanted in zip(first, again, expected, strict=True):
                assert torch.equal(got, twice)
                assert relative(got, wanted) < LIMITS[torch.float32]
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of a first sweep are a constant."""
    k, v, rates, weights = draw(count=3)
    k.requires_grad_()
    found = kernels.gradient(k, v, rates, weights, kernel="triton")
    with flops.counter() as counted:
        found.w0.sum().backward()
    assert counted.get_total_flops() == 2 * 12 * k.numel() * 64


def test_flops_are_counted_as_the_equation_costs() -> None:
    k, v, rates, weights = draw(count=5)
    for name in ("torch", "triton"):
        with flops.counter() as counted:
            kernels.gradient(k, v, rates, weights, kernel=name)
            kernels.apply(k, weights, kernel=name)
        assert counted.get_total_flops() == 2 * 9 * k.numel() * 64


def test_compiled_without_a_graph_break() -> None:
    k, v, rates, weights = draw(count=5)
    given = leaves(k, v, rates, *weights)

    def both(k: Tensor, v: Tensor, rates: Tensor, *weights: Tensor) -> Tensor:
        given = Weights(*weights)
        sums = kernels.gradient(k, v, rates, given, kernel="triton")
        read = kernels.apply(k, Weights(*(a + b for a, b in zip(given, sums))), kernel="triton")
        return read.square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(both, backend="eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*given), given)
    expected = torch.autograd.grad(both(*given), given)
    torch._dynamo.reset()
    for got, wanted in zip(found, expected, strict=True):
        assert relative(got, wanted) < 1e-6


def test_operators_are_what_they_say() -> None:
    """Schema, shapes without values, and layouts, by torch's own examination."""
    k, v, rates, weights = draw(count=3)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.sums, (k, v, rates, *weights), test_utils=tests)
    torch.library.opcheck(ops.read, (k, *weights), test_utils=tests)
    torch.library.opcheck(ops.read_to_tokens, (k, *weights, v), test_utils=tests)
    for operator in (ops.sums_to_tokens, ops.sums_to_weights):
        torch.library.opcheck(operator, (k, v, rates, *weights, *weights), test_utils=tests)


@pytest.mark.parametrize("dtype", LIMITS)
def test_a_layer_answers_as_with_plain_torch(dtype: torch.dtype) -> None:
    """All steps; 16-bit activations stay so where the kernel multiplies in 16 bits."""
    drawn = draw_case(2, width=64, dtype=dtype)
    rope = Rope.of_grid((2, 3), SPECIAL, 32, PLACE, dtype)
    case = Case(drawn.tokens.to(PLACE), replace(drawn.context, rope=rope))
    layers = [TTTMLP(64, 2, sweeps=1, hidden=1, fast_kernel=name) for name in ("torch", "triton")]
    layers[1].load_state_dict(layers[0].state_dict())
    with torch.inference_mode():
        expected, found = (attend(layer.to(PLACE, dtype), case) for layer in layers)
        kept = layers[1].project(case.tokens, case.context)
    assert {kept[name].dtype for name in ("q", "k", "v")} == {dtype}
    assert kept["rates"].dtype == torch.float32
    assert relative(found.double(), expected.double()) < (3e-2 if dtype.itemsize == 2 else 1e-4)


@pytest.mark.parametrize("dtype", LIMITS)
def test_a_layer_learns_as_with_plain_torch(dtype: torch.dtype) -> None:
    """As an adapter is trained: two sweeps, a start that learns; bf16 by autocast."""
    drawn = draw_case(2, width=64, dtype=torch.float32)
    case = Case(
        drawn.tokens.to(PLACE),
        replace(drawn.context, rope=Rope.of_grid((2, 3), SPECIAL, 32, PLACE)),
    )
    found = []
    for name in ("torch", "triton"):
        torch.manual_seed(3)
        layer = TTTMLP(64, 2, sweeps=2, hidden=1, initial="learned", fast_kernel=name).to(PLACE)
        with torch.autocast(PLACE.type, torch.bfloat16, enabled=dtype.itemsize == 2):
            attend(layer, case).float().square().sum().backward()
        found.append({name: p.grad for name, p in layer.named_parameters()})
    expected, got = found
    assert {"w0", "w1", "w2", "qkv.weight", "rates.weight"} < set(got)
    # A head's rates as a whole are what Newton–Schulz divides out: their gradient is rounding.
    for name in set(got) - {"rates.bias"}:
        assert relative(got[name], expected[name]) < (0.12 if dtype.itemsize == 2 else 1e-4), name


def test_costs_are_counted_without_values() -> None:
    sizes = cost.Sizes(width=64, heads=2, special=1, grid=(2, 2))
    plain, fused = (
        cost.measure(LayerSpec("ttt_mlp", (("fast_kernel", name),)), sizes, 3)
        for name in ("torch", "triton")
    )
    assert plain == fused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": torch.float16}, "needs float32 or bfloat16, got float16"),
        ({"head_width": 48, "hidden": 96}, "needs a head width of 32, 64 or 128, got 48"),
        ({"hidden": 96}, "needs a hidden width in head widths, got 96 for 64"),
    ],
)
def test_reasons(changes: dict[str, object], reason: str) -> None:
    facts: dict[str, object] = {"dtype": torch.bfloat16, "head_width": 64, "hidden": 256}
    call = Call(PLACE, **(facts | changes))  # type: ignore[arg-type]
    assert kernels.why_not_triton(call) == reason
    with pytest.raises(
        checks.UsageError, match=f"kernel triton must be able to run here, got {reason}"
    ):
        choose("triton", call)


def test_reasons_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    call = Call(torch.device("cpu"), torch.float32, 64, 256)
    assert kernels.why_not_triton(call) == "needs a CUDA device, the tensors are on cpu"
    properties = SimpleNamespace(major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    old = Call(torch.device("cuda"), torch.float32, 64, 256)
    assert kernels.why_not_triton(old) == "needs compute capability 8.0, the GPU has 7.5"
    monkeypatch.setattr(kernels, "INSTALLED", False)
    assert kernels.why_not_triton(call) == "triton is not installed"


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU plain torch; on CUDA by the order, and without gradients in bf16 only."""
    cpu = Call(torch.device("cpu"), torch.bfloat16, 64, 256)
    assert choose("auto", cpu) == ("torch", "fastest where there is no CUDA device")
    with pytest.raises(checks.UsageError, match="did you mean 'triton'"):
        choose("tritn", cpu)
    with pytest.raises(checks.UsageError, match=r"--attention\.fast_kernel must be one of"):
        TTTMLP(64, 2, fast_kernel="flash")
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    gpu = torch.device("cuda")
    assert choose("auto", Call(gpu, torch.bfloat16, 64, 256))[0] == kernels.ORDER[0]
    monkeypatch.setattr(kernels, "ORDER", ("triton", "torch"))
    for call, expected in (
        (Call(gpu, torch.bfloat16, 64, 256), "triton"),
        (Call(gpu, torch.bfloat16, 64, 256, learned=True), "torch"),
        (Call(gpu, torch.float32, 64, 256), "torch"),
        (Call(gpu, torch.bfloat16, 48, 192), "torch"),
    ):
        assert choose("auto", call)[0] == expected
    assert kernels.operand_dtype("auto", cpu) == torch.float32
    assert kernels.operand_dtype("triton", cpu) == torch.bfloat16
