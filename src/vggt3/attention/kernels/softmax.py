"""Softmax attention by the kernel that runs here: SDPA's four, flash-attn, xformers.

Every kernel computes softmax(q kᵀ/√D + log w) v for q [B, H, N, D] and k, v [B, H, M, D]. A
kernel is chosen by name, or by ``auto``: the first of :data:`ORDER` that can run. The reason a
kernel cannot run is a sentence, so that ``vggt3 attention`` can print it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from vggt3 import checks

HALF = (torch.float16, torch.bfloat16)
NO_WEIGHTS = "takes no token weights"
_CHOOSING = threading.Lock()
"""Which kernels SDPA may take is a setting of the whole process: without it two threads undo each
other's choice, and may leave the process with one kernel for good."""
NOT_LEARNED = "takes no token weights that need a gradient"


@dataclass(frozen=True)
class Call:
    """What a kernel is asked to do, as far as it decides whether it can."""

    device: torch.device
    dtype: torch.dtype
    head_width: int
    masked: bool = False
    """Tokens have weights."""
    learned: bool = False
    """The weights need a gradient."""

    @classmethod
    def of(cls, q: Tensor, log_weight: Tensor | None) -> Call:
        """The call that attends with ``q``."""
        if log_weight is None:
            return cls(q.device, q.dtype, q.shape[-1])
        learned = log_weight.requires_grad and torch.is_grad_enabled()
        return cls(q.device, q.dtype, q.shape[-1], True, learned)


@dataclass(frozen=True)
class Kernel:
    """A way to compute softmax attention."""

    name: str
    why_not: Callable[[Call], str | None]
    """The reason it cannot run a call, or None if it can."""
    run: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    """(q, k, v, log_weight or None) → [B, H, N, D]."""


def _needs(call: Call, devices: tuple[str, ...], dtypes: tuple[torch.dtype, ...]) -> str | None:
    if call.device.type not in devices:
        return f"needs {' or '.join(devices)}, the tensors are on {call.device.type}"
    if call.dtype not in dtypes:
        names = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        return f"needs {names}, got {str(call.dtype).removeprefix('torch.')}"
    return None


def _compute_capability(call: Call, wanted: tuple[int, int]) -> str | None:
    # torch.compile folds this call to a constant, and get_device_capability it does not.
    properties = torch.cuda.get_device_properties(call.device)
    have = (properties.major, properties.minor)
    if have < wanted:
        return f"needs compute capability {wanted[0]}.{wanted[1]}, the GPU has {have[0]}.{have[1]}"
    return None


def _head_width_at_most(call: Call, most: int) -> str | None:
    if call.head_width > most:
        return f"needs a head width of at most {most}, got {call.head_width}"
    return None


def _why_not_flash(call: Call) -> str | None:
    if call.device.type == "cpu":
        return NOT_LEARNED if call.learned else None
    reason = _needs(call, ("cuda",), HALF) or _compute_capability(call, (8, 0))
    if reason is None and call.masked:
        reason = NO_WEIGHTS
    return reason or _head_width_at_most(call, 256)


def _why_not_cudnn(call: Call) -> str | None:
    reason = _needs(call, ("cuda",), HALF) or _compute_capability(call, (8, 0))
    if reason is None and (call.head_width > 128 or call.head_width % 8):
        reason = f"needs a head width of at most 128 in steps of 8, got {call.head_width}"
    return reason or (NOT_LEARNED if call.learned else None)


def _why_not_efficient(call: Call) -> str | None:
    reason = _needs(call, ("cuda",), (*HALF, torch.float32))
    step = 16 // call.dtype.itemsize  # rows must begin at multiples of 16 bytes
    if reason is None and call.head_width % step:
        reason = f"needs a head width in steps of {step}, got {call.head_width}"
    return reason


def _alone() -> AbstractContextManager[object]:
    """While no other thread has chosen; a graph of torch.compile's has no other threads."""
    return nullcontext() if torch.compiler.is_compiling() else _CHOOSING


def _sdpa(backend: SDPBackend) -> Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]:
    def run(q: Tensor, k: Tensor, v: Tensor, log_weight: Tensor | None) -> Tensor:
        mask = None
        if log_weight is not None:
            mask = log_weight[:, None, None, :].to(q.dtype)
            mask = mask.expand(-1, -1, q.shape[2], -1)
        with _alone(), sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return run


def _why_not_package(module: str, extra: str) -> str | None:
    """Builds for another torch or CUDA are common: they are found and cannot be imported."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed (pip install 'vggt3[{extra}]')"
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        detail = str(error).partition("\n")[0]
        return f"the package {package} does not import: {type(error).__name__}: {detail}"
    return None


@functools.cache
def _why_not_tried(name: str, device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    """A wheel for another torch may import and yet hold no operator: only a call tells."""
    q = torch.zeros(1, 1, 8, width, device=device, dtype=dtype)
    try:
        KERNELS[name].run(q, q, q, None)
    except (NotImplementedError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


def _why_not_flash_attn(call: Call) -> str | None:
    reason = _needs(call, ("cuda",), HALF) or _compute_capability(call, (8, 0))
    if reason is None and call.masked:
        reason = NO_WEIGHTS
    reason = reason or _head_width_at_most(call, 256)
    reason = reason or _why_not_package("flash_attn", "flash")
    return reason or _why_not_tried("flash_attn", call.device, call.dtype, call.head_width)


def _run_flash_attn(q: Tensor, k: Tensor, v: Tensor, log_weight: Tensor | None) -> Tensor:
    """flash_attn_func takes and gives [B, N, H, D]."""
    flash = importlib.import_module("flash_attn").flash_attn_func
    out: Tensor = flash(*(t.transpose(1, 2).contiguous() for t in (q, k, v)))
    return out.transpose(1, 2)


def _why_not_xformers(call: Call) -> str | None:
    reason = _needs(call, ("cuda",), (*HALF, torch.float32))
    if reason is None and call.masked:
        reason = NO_WEIGHTS
    reason = reason or _why_not_package("xformers.ops", "xformers")
    return reason or _why_not_tried("xformers", call.device, call.dtype, call.head_width)


def _run_xformers(q: Tensor, k: Tensor, v: Tensor, log_weight: Tensor | None) -> Tensor:
    """memory_efficient_attention takes and gives [B, N, H, D]."""
    attention = importlib.import_module("xformers.ops").memory_efficient_attention
    out: Tensor = attention(*(t.transpose(1, 2).contiguous() for t in (q, k, v)))
    return out.transpose(1, 2)


KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("cudnn", _why_not_cudnn, _sdpa(SDPBackend.CUDNN_ATTENTION)),
        Kernel("flash", _why_not_flash, _sdpa(SDPBackend.FLASH_ATTENTION)),
        Kernel("efficient", _why_not_efficient, _sdpa(SDPBackend.EFFICIENT_ATTENTION)),
        Kernel("math", lambda call: None, _sdpa(SDPBackend.MATH)),
        Kernel("flash_attn", _why_not_flash_attn, _run_flash_attn),
        Kernel("xformers", _why_not_xformers, _run_xformers),
    )
}

ORDER = ("cudnn", "flash", "efficient", "math")
"""What ``auto`` tries, fastest first as measured on an H100; packages only by name."""


def choose(name: str, call: Call) -> tuple[Kernel, str]:
    """The kernel of that name, or of ``auto``, and the reason for it in words.

    Raises:
        UsageError: an unknown name (lists them), or a named kernel that cannot run the call.
    """
    if name != "auto":
        kernel = KERNELS[checks.choose("kernel", name, [*KERNELS, "auto"])]
        reason = kernel.why_not(call)
        if reason is not None:
            checks.fail(f"kernel {name}", "be able to run here", reason)
        return kernel, "asked for by name"
    for candidate in ORDER:
        if KERNELS[candidate].why_not(call) is None:
            return KERNELS[candidate], f"first of {', '.join(ORDER)} that runs here"
    raise AssertionError("the math kernel runs everywhere")


def attend(
    q: Tensor,  # [B, H, N, D]
    k: Tensor,  # [B, H, M, D]
    v: Tensor,  # [B, H, M, D]
    log_weight: Tensor | None = None,  # [B, M], added to the logits of each key
    *,
    kernel: str = "auto",
) -> Tensor:
    """softmax(q kᵀ/√D + log w) v as [B, H, N, D].

    No queries (a rank without views) give an empty answer that still depends on k and v, so that
    every rank's backward pass meets the same sums.
    """
    if q.numel() == 0:
        return attend_reference(q, k, v, log_weight)
    chosen, _ = choose(kernel, Call.of(q, log_weight))
    return chosen.run(q, k, v, log_weight)


def attend_masked(
    q: Tensor,  # [B, H, N, D]
    k: Tensor,  # [B, H, M, D]
    v: Tensor,  # [B, H, M, D]
    mask: Tensor,  # [N, M] bool: row i sees column j
) -> Tensor:
    """softmax(q kᵀ/√D) v over the keys that each row sees, by the kernel that SDPA itself takes."""
    with _alone():
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_reference(q: Tensor, k: Tensor, v: Tensor, log_weight: Tensor | None = None) -> Tensor:
    """The equation, in the dtype given: softmax(q kᵀ/√D + log w) v."""
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # [B, H, N, M]
    if log_weight is not None:
        logits = logits + log_weight[:, None, None, :]
    return logits.softmax(dim=-1) @ v
