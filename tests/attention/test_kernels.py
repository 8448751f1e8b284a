"""Every softmax kernel equals the equation where it runs, and says why where it does not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.attention.variants import relative
from vggt3 import checks
from vggt3.attention.kernels import flops
from vggt3.attention.kernels import softmax as kernels
from vggt3.attention.kernels.softmax import (
    KERNELS,
    NO_WEIGHTS,
    NOT_LEARNED,
    ORDER,
    Call,
    attend,
    attend_reference,
    choose,
)

CPU = torch.device("cpu")
every_kernel = pytest.mark.parametrize("name", list(KERNELS))
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def places() -> Iterator[tuple[torch.device, torch.dtype, float]]:
    """Where and in what to try the kernels, and the relative error that is allowed there."""
    yield CPU, torch.float64, 1e-12
    yield CPU, torch.float32, 1e-5
    yield CPU, torch.bfloat16, 1e-2
    if torch.cuda.is_available():
        gpu = torch.device(torch.cuda.current_device())
        yield gpu, torch.float32, 2e-3
        yield gpu, torch.bfloat16, 1e-2


def draw(
    device: torch.device, dtype: torch.dtype, *, width: int = 64, queries: int = 37
) -> tuple[Tensor, ...]:
    """q [2, 3, N, D]; k, v [2, 3, 2·N + 1, D]; log_weight [2, M] with an absent key."""
    keys = 2 * queries + 1
    q, k, v = (torch.randn(2, 3, n, width).to(device, dtype) for n in (queries, keys, keys))
    weight = torch.rand(2, keys)
    weight[:, 5] = 0.0
    return q, k, v, weight.log().to(device)


def test_threads_do_not_undo_each_others_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which kernels SDPA may take is a setting of the whole process."""

    def state() -> tuple[bool, bool]:
        backends = torch.backends.cuda
        return backends.math_sdp_enabled(), backends.flash_sdp_enabled()

    seen: set[tuple[str, bool, bool]] = set()

    def watched(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
        for _ in range(3):
            seen.add((threading.current_thread().name, *state()))
            time.sleep(0.002)
        return q

    monkeypatch.setattr(kernels, "scaled_dot_product_attention", watched)
    before, q = state(), torch.zeros(1, 1, 2, 8)

    def work(name: str) -> None:
        for _ in range(5):
            KERNELS[name].run(q, q, q, None)

    threads = [threading.Thread(target=work, args=(n,), name=n) for n in ("math", "flash")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {("math", True, False), ("flash", False, True)}
    assert state() == before == (True, True)


@every_kernel
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_equals_the_equation(name: str, weighted: bool) -> None:
    """Forward and every gradient, wherever the kernel runs; else there is a reason."""
    ran = []
    for device, dtype, limit in places():
        q, k, v, log_weight = draw(device, dtype)
        given = log_weight if weighted else None
        reason = KERNELS[name].why_not(Call.of(q, given))
        if reason is not None:
            with pytest.raises(checks.UsageError, match=f"kernel {name} must be able to run here"):
                attend(q, k, v, given, kernel=name)
            continue
        inputs = [x.requires_grad_() for x in (q, k, v)]
        wide = [x.detach().double().requires_grad_() for x in inputs]
        found = attend(inputs[0], inputs[1], inputs[2], given, kernel=name)
        expected = attend_reference(
            wide[0], wide[1], wide[2], None if given is None else given.double()
        )
        assert relative(found.double(), expected) < limit
        pull = torch.randn_like(expected)
        grads = torch.autograd.grad(found, inputs, pull.to(dtype))
        for got, wanted in zip(grads, torch.autograd.grad(expected, wide, pull), strict=True):
            assert relative(got.double(), wanted) < 2 * limit
        ran.append(f"{device.type} {dtype}")
    if not ran:
        pytest.skip(f"{name} does not run here: {KERNELS[name].why_not(Call(*here()))}")


def here() -> tuple[torch.device, torch.dtype, int]:
    device = torch.device(torch.cuda.current_device()) if torch.cuda.is_available() else CPU
    return device, torch.bfloat16, 64


@pytest.mark.parametrize("width", [4, 12, 36, 64, 80, 128, 136, 256, 320])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_kernel_that_says_it_runs_runs(width: int, weighted: bool) -> None:
    for device, dtype, limit in places():
        q, k, v, log_weight = draw(device, dtype, width=width, queries=9)
        given = log_weight if weighted else None
        expected = attend_reference(
            q.double(), k.double(), v.double(), None if given is None else given.double()
        )
        for name, kernel in KERNELS.items():
            if kernel.why_not(Call.of(q, given)) is None:
                found = attend(q, k, v, given, kernel=name)
                assert relative(found.double(), expected) < limit, (name, device, dtype)


def test_weights_that_are_learned() -> None:
    """``auto`` passes over the kernels that give the weights no gradient."""
    q, k, v, log_weight = draw(CPU, torch.float64)
    log_weight = log_weight.double().clamp(min=-3).requires_grad_()
    call = Call.of(q, log_weight)
    assert KERNELS["flash"].why_not(call) == NOT_LEARNED
    assert choose("auto", call)[0].name == "math"
    (found,) = torch.autograd.grad(attend(q, k, v, log_weight).square().sum(), [log_weight])
    expected = attend_reference(q, k, v, log_weight).square().sum()
    assert relative(found, torch.autograd.grad(expected, [log_weight])[0]) < 1e-10
    with torch.no_grad():
        assert choose("auto", Call.of(q, log_weight))[0].name == "flash"


def test_no_queries_still_depend_on_the_keys() -> None:
    """A rank without views must meet the others in the backward pass."""
    _, k, v, _ = (x.requires_grad_() for x in draw(CPU, torch.float32))
    out = attend(torch.zeros(2, 3, 0, 64), k, v)
    assert out.shape == (2, 3, 0, 64)
    out.sum().backward()
    assert k.grad is not None and not k.grad.any()


def test_auto_takes_the_first_that_runs() -> None:
    for device, dtype, _ in places():
        call = Call(device, dtype, 64)
        kernel, reason = choose("auto", call)
        able = [name for name in ORDER if KERNELS[name].why_not(call) is None]
        assert kernel.name == able[0]
        assert reason == f"first of {', '.join(ORDER)} that runs here"
    kernel, reason = choose("math", Call(CPU, torch.float32, 64))
    assert (kernel.name, reason) == ("math", "asked for by name")


def test_an_unknown_kernel_is_told_with_the_nearest() -> None:
    with pytest.raises(checks.UsageError) as told:
        choose("flsh", Call(CPU, torch.float32, 64))
    for word in (*KERNELS, "auto", "did you mean 'flash'?"):
        assert word in str(told.value)


@pytest.mark.parametrize("device", ["meta", "mps", "xpu"])
def test_math_runs_everywhere(device: str) -> None:
    call = Call(torch.device(device), torch.bfloat16, 64)
    assert choose("auto", call)[0].name == "math"
    for name in set(KERNELS) - {"math"}:
        assert KERNELS[name].why_not(call) == f"needs cuda, the tensors are on {device}"


class FakeGPU:
    """A device that calls itself CUDA, so that the reasons can be read where there is none."""

    type = "cuda"


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    properties = SimpleNamespace(major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def call_on_gpu(**changes: object) -> Call:
    facts: dict[str, object] = {"dtype": torch.bfloat16, "head_width": 64, **changes}
    return Call(FakeGPU(), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "changes", "capability", "reason"),
    [
        ("cudnn", {}, (9, 0), None),
        ("cudnn", {}, (7, 5), "needs compute capability 8.0, the GPU has 7.5"),
        ("cudnn", {"dtype": torch.float32}, (9, 0), "needs float16 or bfloat16, got float32"),
        ("cudnn", {"head_width": 20}, (9, 0), "of at most 128 in steps of 8, got 20"),
        ("cudnn", {"masked": True, "learned": True}, (9, 0), NOT_LEARNED),
        ("flash", {"masked": True}, (9, 0), NO_WEIGHTS),
        ("flash", {"head_width": 264}, (9, 0), "a head width of at most 256, got 264"),
        ("efficient", {"dtype": torch.float64}, (9, 0), "got float64"),
        ("efficient", {"masked": True, "learned": True}, (9, 0), None),
        ("efficient", {"head_width": 12}, (9, 0), "needs a head width in steps of 8, got 12"),
        ("efficient", {"head_width": 12, "dtype": torch.float32}, (9, 0), None),
        ("flash_attn", {"masked": True}, (9, 0), NO_WEIGHTS),
        ("flash_attn", {"head_width": 264}, (9, 0), "a head width of at most 256, got 264"),
        ("xformers", {"masked": True}, (9, 0), NO_WEIGHTS),
        ("xformers", {"dtype": torch.float64}, (9, 0), "got float64"),
    ],
)
def test_reasons(
    name: str,
    changes: dict[str, object],
    capability: tuple[int, int],
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_gpu(monkeypatch, capability)
    found = KERNELS[name].why_not(call_on_gpu(**changes))
    assert found is None if reason is None else reason in (found or "")


def install(monkeypatch: pytest.MonkeyPatch, name: str, **functions: object) -> None:
    """Put a module into the interpreter, and the packages around it."""
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:n]))
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=n < len(parts))
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(functions)


def tokens_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[B, N, H, D] in and out, as both packages document it."""
    assert q.shape[0] == k.shape[0] == v.shape[0] and q.shape[2:] == k.shape[2:] == v.shape[2:]
    assert all(x.is_contiguous() for x in (q, k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2)


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """flash-attn's documented signature: the scale is 1/√D by default, attention is full."""
    assert (dropout_p, softmax_scale, causal, window_size) == (0.0, None, False, (-1, -1))
    return tokens_first(q, k, v)


def memory_efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """xformers' documented signature: inputs [B, M, H, K], scale 1/√K by default."""
    assert (attn_bias, p, scale) == (None, 0.0, None)
    return tokens_first(query, key, value)


PACKAGES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "flash_attn": ("flash_attn", flash_attn_func),
    "xformers": ("xformers.ops", memory_efficient_attention),
}


@pytest.mark.parametrize("name", list(PACKAGES))
def test_adapters_to_packages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function = PACKAGES[name]
    install(monkeypatch, module, **{function.__name__: function})
    pretend_gpu(monkeypatch)
    monkeypatch.setattr("vggt3.attention.kernels.softmax._why_not_tried", lambda *call: None)
    assert KERNELS[name].why_not(call_on_gpu()) is None
    q, k, v, _ = draw(CPU, torch.float64)
    found = KERNELS[name].run(q, k, v, None)
    assert relative(found, attend_reference(q, k, v)) < 1e-12


@pytest.mark.parametrize("name", list(PACKAGES))
def test_a_package_that_is_absent_or_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    reason = KERNELS[name].why_not(call_on_gpu())
    extra = "flash" if name == "flash_attn" else name
    assert reason == f"the package {name} is not installed (pip install 'vggt3[{extra}]')"
    monkeypatch.setattr("importlib.util.find_spec", lambda package: ModuleSpec(package, None))

    def broken(module: str) -> ModuleType:
        raise ImportError("undefined symbol: _ZN3c10\nmore")

    monkeypatch.setattr("importlib.import_module", broken)
    reason = KERNELS[name].why_not(call_on_gpu())
    assert reason == f"the package {name} does not import: ImportError: undefined symbol: _ZN3c10"


@pytest.mark.parametrize("name", list(PACKAGES))
def test_a_package_that_imports_but_has_no_operator(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As xformers 0.0.35, built for torch 2.10, beside torch 2.11 on an H100."""
    module, function = PACKAGES[name]

    def missing(*tensors: Tensor) -> Tensor:
        raise NotImplementedError("No operator found\nwith inputs …")

    install(monkeypatch, module, **{function.__name__: missing})
    reason = kernels._why_not_tried(name, torch.device("cpu"), torch.float32, 24)
    assert reason == "NotImplementedError: No operator found"


@every_kernel
def test_no_kernel_counts_as_zero(name: str) -> None:
    """Forward and backward cost what the two products cost, whatever computes them."""
    for device, dtype, _ in places():
        q, k, v, _ = (x.requires_grad_() for x in draw(device, dtype))
        if KERNELS[name].why_not(Call.of(q, None)) is not None:
            continue
        product = 2 * q[..., 0].numel() * k.shape[2] * q.shape[3]
        with flops.counter() as counted:
            out = attend(q, k, v, kernel=name)
        assert counted.get_total_flops() == 2 * product, (name, device)
        with flops.counter() as counted:
            out.sum().backward()
        assert counted.get_total_flops() >= 4 * product, (name, device)


def test_flash_attn_is_counted_by_its_operator() -> None:
    """The formula looks for the operator that flash-attn defines, with [B, N, H, D] arguments."""
    library = torch.library.Library("flash_attn", "FRAGMENT")
    library.define("_flash_attn_forward(Tensor q, Tensor k, Tensor v) -> Tensor")
    library.impl("_flash_attn_forward", lambda q, k, v: torch.empty_like(q), "CPU")
    q, k = torch.randn(2, 7, 3, 16), torch.randn(2, 9, 3, 16)
    with flops.counter() as counted:
        torch.ops.flash_attn._flash_attn_forward(q, k, k)
    assert counted.get_total_flops() == 2 * (2 * 2 * 3 * 7 * 9 * 16)
    library._destroy()


@pytest.mark.gpu
@on_gpu
def test_what_runs_on_this_gpu() -> None:
    """A record for the log: which kernels ran, and why the others did not."""
    for weighted in (False, True):
        call = Call(*here(), masked=weighted)
        for name, kernel in KERNELS.items():
            print(f"{name:10} weighted={weighted}: {kernel.why_not(call) or 'runs'}")
        assert choose("auto", call)[0].name == "cudnn"
