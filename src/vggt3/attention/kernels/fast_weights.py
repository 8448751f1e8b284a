"""The fast weights' gradient sums and read by the kernel that runs here: plain torch or Triton.

Both compute ``gradient`` and ``apply`` of ``vggt3.attention.fast_weights`` and their gradients.
``torch`` is those equations in the dtype of the weights. ``triton`` keeps what is between the
tokens and the sums on the chip and multiplies in the dtype of the tokens: bf16 as it is (an error
of bf16's rounding, 4e-3 to 7e-3), fp32 as three TF32 products; sums are fp32 either way.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.attention import fast_weights
from vggt3.attention.fast_weights import Weights

NAMES = ("torch", "triton")
ORDER = ("triton", "torch")
"""What ``auto`` tries on CUDA, fastest first as measured."""
HEAD_WIDTHS = (32, 64, 128)
DTYPES = (torch.float32, torch.bfloat16)
INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Call:
    """What a kernel is asked to do, as far as it decides whether it can."""

    device: torch.device
    dtype: torch.dtype
    """Of the tokens' activations."""
    head_width: int
    hidden: int
    learned: bool = False
    """Gradients are recorded."""

    @classmethod
    def of(cls, tokens: Tensor, weights: Weights) -> Call:
        """The call that reads or writes ``tokens`` [B, H, N, d]."""
        hidden = weights.w0.shape[-1]
        grad = torch.is_grad_enabled()
        return cls(tokens.device, tokens.dtype, tokens.shape[-1], hidden, grad)


def why_not_triton(call: Call) -> str | None:
    """The reason why the Triton kernels cannot run a call, or None if they can."""
    if not INSTALLED:
        return "triton is not installed"
    if call.dtype not in DTYPES:
        return f"needs float32 or bfloat16, got {str(call.dtype).removeprefix('torch.')}"
    if call.head_width not in HEAD_WIDTHS:
        return f"needs a head width of 32, 64 or 128, got {call.head_width}"
    if call.hidden % call.head_width:
        return f"needs a hidden width in head widths, got {call.hidden} for {call.head_width}"
    if INTERPRETED:
        return None
    if call.device.type != "cuda" or torch.version.hip is not None:
        return f"needs a CUDA device, the tensors are on {call.device.type}"
    # torch.compile folds this call to a constant, and get_device_capability it does not.
    properties = torch.cuda.get_device_properties(call.device)
    if properties.major < 8:
        return f"needs compute capability 8.0, the GPU has {properties.major}.{properties.minor}"
    return None


def choose(name: str, call: Call) -> tuple[str, str]:
    """``torch`` or ``triton`` for that name, or for ``auto``, and the reason for it in words.

    Raises:
        UsageError: an unknown name (lists them), or ``triton`` where it cannot run the call.
    """
    checks.choose("--attention.fast_kernel", name, [*NAMES, "auto"])
    if call.device.type == "meta":
        return "torch", "only counted, not computed"
    if name == "triton" and (reason := why_not_triton(call)) is not None:
        checks.fail("kernel triton", "be able to run here", reason)
    if name != "auto":
        return name, "asked for by name"
    if call.device.type != "cuda":
        return "torch", "fastest where there is no CUDA device"
    for candidate in ORDER:
        if candidate == "torch" or _why_not_auto(call) is None:
            return candidate, f"first of {', '.join(ORDER)} that suits the call"
    raise AssertionError("plain torch runs everywhere")


def _why_not_auto(call: Call) -> str | None:
    """The reason why ``auto`` leaves a call to plain torch, or None."""
    if call.learned:
        return "training was not timed"
    if call.dtype != torch.bfloat16:
        return "only bfloat16 was timed"
    return why_not_triton(call)


def operand_dtype(name: str, call: Call) -> torch.dtype:
    """What q, k and v are kept in: the activations' own dtype where the kernel multiplies in it,
    else at least fp32."""
    chosen, _ = choose(name, call)
    return call.dtype if chosen == "triton" else torch.promote_types(call.dtype, torch.float32)


def apply(
    x: Tensor,  # [B, H, N, d]
    weights: Weights,
    *,
    kernel: str = "auto",
) -> Tensor:
    """f(x) = (SiLU(x W0) ⊙ (x W2)) W1 as [B, H, N, d], see ``fast_weights.apply``."""
    chosen, _ = choose(kernel, Call.of(x, weights))
    if chosen == "torch":
        return fast_weights.apply(_wide(x, weights), weights)
    from vggt3.attention.kernels import fast_weights_ops

    out: Tensor = fast_weights_ops.read(x, *_for_each(weights, x))
    return out


def gradient(
    k: Tensor,  # [B, H, N, d]
    v: Tensor,  # [B, H, N, d]
    rates: Tensor,  # [B, H, N, 3] learning rates of W0, W1, W2
    weights: Weights,
    *,
    kernel: str = "auto",
) -> Weights:
    """G0, G1, G2 summed over the tokens, see ``fast_weights.gradient``."""
    chosen, _ = choose(kernel, Call.of(k, weights))
    if chosen == "torch":
        return fast_weights.gradient(_wide(k, weights), _wide(v, weights), rates, weights)
    from vggt3.attention.kernels import fast_weights_ops

    rates = rates.to(torch.float32)
    return Weights(*fast_weights_ops.sums(k, v.to(k.dtype), rates, *_for_each(weights, k)))


def _wide(x: Tensor, weights: Weights) -> Tensor:
    return x.to(torch.promote_types(x.dtype, weights.w0.dtype))


def _for_each(weights: Weights, tokens: Tensor) -> list[Tensor]:
    """A scene's weights for every sequence of the batch."""
    return [w.expand(*tokens.shape[:2], *w.shape[-2:]) for w in weights]
