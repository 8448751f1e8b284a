"""Formulas for the operators that torch's FLOP counter does not know, so that none counts as 0.

A package with a kernel of its own registers its formula where the kernel is defined, by
``torch.utils.flop_counter.register_flop_formula``; the counter made here finds it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

Shape = tuple[int, ...]


def _attend(q: Shape, k: Shape, v: Shape, *rest: Any, **named: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


def _attend_backward(grad: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **named: Any) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))


def _heads_first(shape: Shape) -> Shape:
    """[B, N, H, D] → [B, H, N, D]."""
    batch, tokens, heads, width = shape
    return batch, heads, tokens, width


def _tokens_first(formula: Callable[..., int], tensors: int) -> Callable[..., int]:
    """``formula`` for an operator whose first ``tensors`` arguments are [B, N, H, D]."""

    def count(*shapes: Shape, **named: Any) -> int:
        return formula(*(_heads_first(shape) for shape in shapes[:tensors]))

    return count


def formulas() -> dict[Any, Callable[..., int]]:
    """Operator → its FLOPs from the shapes of its arguments; the operators that exist here."""
    found: dict[Any, Callable[..., int]] = {}
    for package, name, formula in (
        ("aten", "_scaled_dot_product_flash_attention_for_cpu", _attend),
        ("aten", "_scaled_dot_product_flash_attention_for_cpu_backward", _attend_backward),
        ("flash_attn", "_flash_attn_forward", _tokens_first(_attend, 3)),
        ("flash_attn", "_flash_attn_backward", _tokens_first(_attend_backward, 4)),
    ):
        operator = getattr(getattr(torch.ops, package), name, None)
        if operator is not None:
            found[operator] = formula
    return found


def counter() -> FlopCounterMode:
    """A FLOP counter (2 for a multiply-add) that knows the kernels of this package."""
    return FlopCounterMode(display=False, custom_mapping=formulas())
