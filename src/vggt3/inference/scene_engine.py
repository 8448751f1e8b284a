"""The engine as scenes use it: with the identity of its model, and poses made cameras."""

from __future__ import annotations

from dataclasses import replace

import torch

from vggt3.attention.base import Backend, Context
from vggt3.attention.registry import LayerSpec
from vggt3.attention.rope import Rope
from vggt3.inference.engine import Engine
from vggt3.inference.identity import ModelIdentity, identity_of
from vggt3.inference.options import RunOptions
from vggt3.model.scene import Memory
from vggt3.model.vggt3 import VGGT3


class SceneEngine(Engine):
    """An engine that knows the model that it was given, of which it runs a copy. Its runs are for
    the cameras and the memory: no dense heads."""

    def __init__(self, model: VGGT3, options: RunOptions | None = None) -> None:
        super().__init__(model, options, dense=False)
        self.given = model

    @property
    def identity(self) -> ModelIdentity:
        """Of the model as it was given: its own copy may be rounded."""
        return identity_of(self.given)

    @torch.inference_mode()
    def fit(self, memory: Memory) -> Memory:
        """A memory on the engine's device, in the types that its model writes there: a scene may
        be mapped in bf16 and asked in fp32, or the other way round."""
        found: dict[LayerSpec, dict[str, torch.dtype]] = {}
        states = []
        for layer, (spec, state) in enumerate(zip(self.model.specs, memory.states, strict=True)):
            if spec not in found:
                attn = self.model.aggregator.block(layer).attn
                found[spec] = _written_types(attn, self.model.config.special, self.device)
            kinds = found[spec]
            tensors = {
                k: t.to(self.device, kinds.get(k, t.dtype)) for k, t in state.tensors.items()
            }
            states.append(replace(state, tensors=tensors))
        return replace(
            memory, states=tuple(states), camera_tokens=memory.camera_tokens.to(self.device)
        )


def _written_types(attn: Backend, special: int, device: torch.device) -> dict[str, torch.dtype]:
    """Type of each tensor of a settled state, from a view of one patch."""
    dtype = attn.qkv.weight.dtype
    rope = Rope.of_grid((1, 1), special, attn.width // attn.heads, device)
    plan = attn.survey(torch.ones(1, 1, 4, device=device))
    tokens = torch.zeros(1, 1, special + 1, attn.width, device=device, dtype=dtype)
    projection = attn.project(tokens, Context((0,), (1, 1), rope, None, plan))
    state = attn.begin(1, 1, device, plan)
    state, _ = attn.settle(state, attn.write(projection, state))
    return {name: tensor.dtype for name, tensor in state.tensors.items()}
