"""torch.compile where a training step spends its time; state dicts keep their names.

Blocks, dense heads and dense losses are one graph each, so that equal blocks share one
compilation (all that a view alone decides, all recipes of as many pictures too).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch

from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import VGGT3

GRAPHS_A_FUNCTION = 256
"""Compilations of one function before torch gives up on it: shapes of a curriculum × backends and
options of an ablation."""


def _allow() -> None:
    torch._dynamo.config.recompile_limit = GRAPHS_A_FUNCTION
    torch._dynamo.config.accumulated_recompile_limit = 4 * GRAPHS_A_FUNCTION


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled for the exact shapes it meets."""
    _allow()
    made: Callable[..., Any] = torch.compile(function, dynamic=False)
    return made


@dataclass(frozen=True)
class CompiledConduct(Conduct):
    """A conduct whose steps of a global block are compiled."""

    def run(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """Call ``function``; a plain function compiled, a bound method (a frame block) as is."""
        plain = isinstance(function, FunctionType)
        return super().run(compiled(function) if plain else function, *inputs)


def compile_parts(model: VGGT3) -> None:
    """Compile the model's parts in place. Under :func:`uncompiled` they run as written."""
    _allow()
    # Graphs as small as ours are not split for DDP's sake, and one process's serve all.
    torch._dynamo.config.optimize_ddp = False
    for block in (*model.encoder.blocks, *model.aggregator.frame_blocks):
        block.compile(dynamic=False)
    for head in (model.depth_head, model.point_head):
        head.decode = torch.compile(head.decode, dynamic=False)  # type: ignore[method-assign]
        head.finish = torch.compile(head.finish, dynamic=False)  # type: ignore[method-assign]
    for layer in range(model.config.layers):
        attn = model.aggregator.block(layer).attn
        if attn.linear:
            attn.settle = torch.compile(  # type: ignore[method-assign]
                attn.settle, dynamic=False
            )


def uncompiled() -> Any:
    """A region in which compiled parts run as written (validation meets them seldom)."""
    return torch.compiler.set_stance("force_eager")
