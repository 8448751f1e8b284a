"""Whether the kernels that a row would use compute what they should, before it is timed.

Every step of a layer's backend is given the same input as a float64 copy on the CPU, which runs
the plain equations: a step's error is its own, however far it would be carried by the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vggt3.attention.base import Backend, Context, Projection
from vggt3.attention.kernels.softmax import KERNELS, Call, attend_reference, choose
from vggt3.attention.memory import Delta, State
from vggt3.attention.registry import KERNEL_OPTIONS, LayerSpec
from vggt3.attention.rope import Rope
from vggt3.model.config import ModelConfig
from vggt3.model.vggt3 import VGGT3

VIEWS, GRID = 3, (5, 7)
KEYS = 131
CPU_FP32, FP32, BF16 = 1e-4, 2e-3, 1e-2
"""Relative L2 error that passes. A GPU's fp32 kernels may multiply in tf32."""


@dataclass(frozen=True)
class Check:
    """One comparison."""

    name: str
    error: float
    """Relative L2; inf where something is not finite."""
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return self.error <= self.limit


def limit(device: torch.device, dtype: torch.dtype) -> float:
    """The error that passes on a device in a dtype."""
    if dtype != torch.float32:
        return BF16
    return CPU_FP32 if device.type == "cpu" else FP32


def relative(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖; 0 where both are nothing."""
    a, b = found.detach().double().cpu(), expected.detach().double().cpu()
    if a.shape != b.shape:
        return float("inf")
    error = float((a - b).norm() / b.norm().clamp_min(1e-30)) if b.numel() else 0.0
    return error if error == error else float("inf")  # nan is equal to nothing


@torch.inference_mode()
def check_model(model: VGGT3, dtype: torch.dtype) -> list[Check]:
    """Every kernel that ``model`` would use, on its own device with products in ``dtype``."""
    device = next(model.parameters()).device
    allowed = limit(device, dtype)
    found = [
        Check(f"{name}, head width {width}", _softmax_error(name, width, device, dtype), allowed)
        for name, width in sorted(_softmax_kernels(model.config, device, dtype))
    ]
    layers: dict[LayerSpec, int] = {}
    for layer, spec in enumerate(model.specs):
        layers.setdefault(spec, layer)
    for spec, layer in layers.items():
        attn = model.aggregator.global_blocks[layer].attn
        assert isinstance(attn, Backend)
        steps = list(_steps(attn, reference(attn, spec), model.config.special))
        found += [Check(f"{spec.name}: {step}", error, allowed) for step, error in steps]
    return found


def _softmax_kernels(
    config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> set[tuple[str, int]]:
    """(kernel, head width) of the encoder, the frame blocks and the camera head."""
    widths = {
        config.encoder.width // config.encoder.heads,
        config.width // config.heads,
        2 * config.width // config.camera_heads,
    }
    return {(choose("auto", Call(device, dtype, width))[0].name, width) for width in widths}


def _softmax_error(name: str, width: int, device: torch.device, dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(width)
    q, k, v = (torch.randn(2, 3, KEYS, width, generator=generator) for _ in range(3))
    given = [x.to(device, dtype) for x in (q, k, v)]
    found = KERNELS[name].run(given[0], given[1], given[2], None)
    exact = [x.cpu().double() for x in given]
    return relative(found, attend_reference(exact[0], exact[1], exact[2]))


def reference(attn: Backend, spec: LayerSpec) -> Backend:
    """The layer in float64 on the CPU, with no kernel asked for."""
    plain = LayerSpec(spec.name, tuple((k, v) for k, v in spec.options if k not in KERNEL_OPTIONS))
    made = plain.build(attn.width, attn.heads, attn.layer)
    made.load_state_dict({k: t.detach().cpu() for k, t in attn.state_dict().items()})
    return made.double().eval()


def _steps(attn: Backend, exact: Backend, special: int) -> Iterator[tuple[str, float]]:
    parameter = next(attn.parameters())
    device = parameter.device
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, VIEWS, special + GRID[0] * GRID[1], attn.width, generator=generator)
    tokens = tokens.to(parameter.dtype)
    seen = torch.nn.functional.normalize(torch.randn(1, VIEWS, 8, generator=generator), dim=-1)
    plan = attn.survey(seen.to(device))
    here = _context(attn, special, device, torch.float32, plan)
    there = _context(attn, special, torch.device("cpu"), torch.float64, _state(plan))
    projection = attn.project(tokens.to(device), here)
    yield "project", _worst(projection.tensors, exact.project(tokens.double(), there).tensors)
    state = attn.begin(VIEWS, 1, device, plan)
    delta = attn.write(projection, state)
    given = Projection(_wide(projection.tensors), projection.views, there)
    expected = exact.write(given, _known(state))
    yield "write", max(_worst(delta.sums, expected.sums), _worst(delta.lists, expected.lists))
    settled, _ = attn.settle(state, delta)
    added = Delta(_wide(delta.sums), _wide(delta.lists))
    yield "settle", _worst(settled.tensors, exact.settle(_known(state), added)[0].tensors)
    yield "read", relative(attn.read(projection, settled), exact.read(given, _known(settled)))


def _context(
    attn: Backend, special: int, device: torch.device, dtype: torch.dtype, plan: State | None
) -> Context:
    rope = Rope.of_grid(GRID, special, attn.width // attn.heads, device, dtype)
    return Context(tuple(range(VIEWS)), GRID, rope, None, plan)


def _wide(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, what is real in float64."""
    return {k: t.cpu().double() if t.is_floating_point() else t.cpu() for k, t in tensors.items()}


def _known(state: State) -> State:
    return State(_wide(state.tensors), state.numbers, state.bounded)


def _state(plan: State | None) -> State | None:
    return None if plan is None else _known(plan)


def _worst(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    if set(found) != set(expected):
        return float("inf")
    return max((relative(found[name], expected[name]) for name in found), default=0.0)
