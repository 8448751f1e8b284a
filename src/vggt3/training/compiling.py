"""torch.compile where a training step spends its time; state dicts keep their names.

Whole blocks, the encoder, the heads and the dense losses are one graph each, so that equal
blocks share one compilation and a change of shape compiles little again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import torch

from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import VGGT3

GRAPHS_A_FUNCTION = 64
"""Compilations of one function before torch gives up on it: layers × shapes of a curriculum."""


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled for the exact shapes it meets."""
    torch._dynamo.config.recompile_limit = GRAPHS_A_FUNCTION
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
    torch._dynamo.config.recompile_limit = GRAPHS_A_FUNCTION
    parts = (
        model.encoder,
        *model.aggregator.frame_blocks,
        model.camera_head,
        model.depth_head,
        model.point_head,
    )
    for part in parts:
        part.compile(dynamic=False)


def uncompiled() -> Any:
    """A region in which compiled parts run as written (validation meets them seldom)."""
    return torch.compiler.set_stance("force_eager")


def remember(file: Path) -> None:
    """Write what was compiled in this process, for :func:`recall` on a like machine."""
    found = torch.compiler.save_cache_artifacts()
    if found is not None:
        file.write_bytes(found[0])


def recall(file: Path) -> None:
    """Take over what an earlier process compiled; what does not fit is compiled again.

    The file holds compiled code: only ever give it one of your own.
    """
    torch.compiler.load_cache_artifacts(file.read_bytes())
