"""Linear attention that learns which tokens are worth remembering.

o = φ(q) Σ w g φ(k)ᵀv / (φ(q)·Σ w g φ(k) + 1e-6), φ = elu + 1, with a gate g = σ(x·a + b) in (0, 1)
for each token and head. State: H·D·(D+1) numbers a layer; the sums are fp32.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from vggt3.attention.base import Backend, Context, Projection, as_given, merge_heads, split_heads
from vggt3.attention.memory import Delta, State


class GatedLinear(Backend):
    name = "gated_linear"
    summary = "linear attention with a learned gate for each token"

    def __init__(self, width: int, heads: int, layer: int = 0, *, opening: float = 4.0) -> None:
        """A layer with random weights.

        Args:
            opening: the gates' bias b at the start; large means that every token is remembered.
        """
        super().__init__(width, heads, layer)
        self.gate = nn.Linear(width, heads)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, opening)

    def begin(
        self, views: int, batch: int, device: torch.device, plan: State | None = None
    ) -> State:
        return State()

    def project(self, tokens: Tensor, context: Context) -> Projection:  # tokens [B, V, P, C]
        q, k, v = (split_heads(x, self.heads) for x in self.qkv(tokens).chunk(3, dim=-1))
        wide = torch.promote_types(v.dtype, torch.float32)
        q, k = (elu(context.rope.turn(x.to(wide))) + 1 for x in (q, k))  # [B, H, V, P, D]
        gate = torch.sigmoid(self.gate(tokens).to(wide))  # [B, V, P, H]
        if context.weight is not None:
            gate = gate * context.weight[..., None].to(wide)
        k = k * gate.movedim(-1, 1)[..., None]
        found = {"q": q, "k": k, "v": v.to(wide)}
        tensors = {name: x.flatten(2, 3) for name, x in found.items()}  # [B, H, V·P, D]
        return Projection(tensors, tokens.shape[1], context)

    def write(self, projection: Projection, state: State) -> Delta:
        k, v = projection["k"], projection["v"]
        with as_given(k.device):
            return Delta({"kv": k.transpose(-1, -2) @ v, "k": k.sum(dim=2)})

    def settle(self, state: State, delta: Delta) -> tuple[State, bool]:
        return state.updated(delta.sums), False

    def read(self, projection: Projection, state: State) -> Tensor:
        q = projection["q"]
        with as_given(q.device):
            out = q @ state["kv"] / (q @ state["k"][..., None] + 1e-6)
        mixed: Tensor = self.proj(merge_heads(out, projection).to(self.proj.weight.dtype))
        return mixed
