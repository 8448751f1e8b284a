"""Global attention as test-time training: a small MLP per head learns to map keys to values.

The MLP is the scene (VGG-T³). State: 3·d·h fp32 numbers a head, whatever the number of views;
cost 6·d·h multiply-adds a token and head for each sweep's write and 3·d·h for the read.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from vggt3 import checks
from vggt3.attention import fast_weights
from vggt3.attention.base import (
    Backend,
    Context,
    Projection,
    agreement,
    as_given,
    merge_heads,
    split_heads,
)
from vggt3.attention.fast_weights import Weights
from vggt3.attention.kernels import fast_weights as kernels
from vggt3.attention.kernels import rows
from vggt3.attention.memory import Delta, State

BASE_RATE = 0.01
INVERSE_SOFTPLUS = math.log(math.expm1(BASE_RATE))
START = Weights._fields
"""Names of what the fast weights begin as: buffers, or parameters where they learn."""
OPEN = 1.2784645427610738
"""Where SiLU is 1: a gate that starts there lets everything pass."""


def draw_start(
    heads: int, width: int, hidden: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """W0, W1, W2 from N(0, 2/fan_in): [H, d, h], [H, h, d], [H, d, h]."""

    def draw(rows: int, columns: int) -> Tensor:
        return torch.randn(heads, rows, columns, generator=generator) * (2 / rows) ** 0.5

    return draw(width, hidden), draw(hidden, width), draw(width, hidden)


class TTTMLP(Backend):
    """Fast-weight MLP written by Newton–Schulz steps on Σ⟨f(k), v⟩, read by f(q)."""

    name = "ttt_mlp"
    summary = "a fast-weight MLP per head, trained at test time"

    def __init__(
        self,
        width: int,
        heads: int,
        layer: int = 0,
        *,
        sweeps: int | str = "auto",
        hidden: int = 4,
        newton_schulz: int = 5,
        seed: int = 0,
        initial: str = "fixed",
        fast_kernel: str = "auto",
        rates: str = "learned",
        gate: bool = False,
    ) -> None:
        """A layer with random weights.

        Args:
            sweeps: times every view is written; auto is 1 in training, else min(2 + V//1000, 4).
            hidden: hidden width of the MLP in head widths.
            newton_schulz: steps of the orthogonalising iteration on each sweep's gradient.
            seed: of the random start of the fast weights; layers differ.
            initial: fixed (the paper's: the start is never trained), or learned from there on.
            fast_kernel: torch, triton, or auto.
            rates: learned (predicted from each token), or fixed: 0.01 for all.
            gate: multiply what is read by SiLU(Linear(token)), as ZipMap does.
        """
        super().__init__(width, heads, layer)
        checks.require(
            sweeps == "auto" or (isinstance(sweeps, int) and sweeps >= 1),
            "--attention.sweeps",
            "be auto or at least 1",
            sweeps,
        )
        checks.require(hidden >= 1, "--attention.hidden", "be at least 1", hidden)
        checks.require(
            newton_schulz >= 0, "--attention.newton_schulz", "be at least 0", newton_schulz
        )
        checks.choose("--attention.fast_kernel", fast_kernel, [*kernels.NAMES, "auto"])
        checks.choose("--attention.rates", rates, ("learned", "fixed"))
        checks.choose("--attention.initial", initial, ("fixed", "learned"))
        self.sweeps, self.newton_schulz, self.fast_kernel = sweeps, newton_schulz, fast_kernel
        head_width = width // heads
        self.rates = nn.Linear(width, 3 * heads) if rates == "learned" else None
        self.gate = nn.Linear(width, width) if gate else None
        for linear, bias in ((self.rates, 0.0), (self.gate, OPEN)):
            if linear is not None:
                nn.init.zeros_(linear.weight)
                nn.init.constant_(linear.bias, bias)
        generator = torch.Generator().manual_seed(seed * 1009 + layer)
        self.w0: Tensor
        self.w1: Tensor
        self.w2: Tensor
        start = draw_start(heads, head_width, hidden * head_width, generator)
        for name, matrices in zip(START, start, strict=True):
            if initial == "learned":
                self.register_parameter(name, nn.Parameter(matrices))
            else:
                self.register_buffer(name, matrices)

    def begin(
        self, views: int, batch: int, device: torch.device, plan: State | None = None
    ) -> State:
        sweeps = self.sweeps
        if isinstance(sweeps, str):
            sweeps = 1 if self.training else min(2 + views // 1000, 4)
        tensors = {}
        for name, start in (("w0", self.w0), ("w1", self.w1), ("w2", self.w2)):
            wide = start.to(device, torch.promote_types(start.dtype, torch.float32))
            tensors[name] = wide.expand(batch, *wide.shape)
            tensors[f"norm{name[1]}"] = fast_weights.column_norms(wide).unsqueeze(0)
        return State(tensors, {"sweep": 0, "sweeps": sweeps, "views": views})

    def mix(
        self,
        qkv: Tensor,  # [B, V, P, 3·C]
        context: Context,
    ) -> Tensor:
        """What happens to queries and keys before their SiLU; nothing here."""
        return qkv

    def values(
        self,
        qkv: Tensor,  # [B, V, P, 3·C]
        context: Context,
    ) -> Tensor:
        """[B, V, P, C] the values that are written; their SiLU here."""
        return silu(qkv[..., 2 * self.width :])

    def token_rates(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """The learning rates of every token, head and matrix: [B, V, P, 3·H] as [rate, head]."""
        if self.rates is None:
            shape = (*tokens.shape[:3], 3 * self.heads)
            return torch.full(shape, BASE_RATE, dtype=dtype, device=tokens.device)
        return softplus(self.rates(tokens).to(dtype) + INVERSE_SOFTPLUS)

    def project(self, tokens: Tensor, context: Context) -> Projection:
        qkv = self.mix(self.qkv(tokens), context)
        wide = torch.promote_types(qkv.dtype, torch.float32)
        _, width, hidden = self.w0.shape
        call = kernels.Call(qkv.device, qkv.dtype, width, hidden, torch.is_grad_enabled())
        kept = kernels.operand_dtype(self.fast_kernel, call)
        q, k = rows.silu_turn(qkv, self.heads, context.rope, wide)  # [B, V, P, H, D]
        v = self.values(qkv, context).unflatten(-1, (self.heads, -1))
        q, k, v = (x.to(kept).flatten(1, 2).transpose(1, 2) for x in (q, k, v))
        rates = self.token_rates(tokens, wide)
        if context.weight is not None:
            rates = rates * context.weight[..., None].to(wide)
        rates = rates.unflatten(-1, (3, self.heads)).flatten(1, 2).permute(0, 3, 1, 2)
        tensors = {
            "q": q,
            "k": k,
            "v": v,
            "rates": rates,  # [B, H, N, 3]
        }
        if self.gate is not None:
            tensors["gate"] = silu(split_heads(self.gate(tokens), self.heads)).flatten(2, 3)
        return Projection(tensors, tokens.shape[1], context)

    def write(self, projection: Projection, state: State) -> Delta:
        k, v, rates = (projection[name] for name in ("k", "v", "rates"))
        weights = Weights(state["w0"], state["w1"], state["w2"])
        with as_given(k.device):
            g0, g1, g2 = kernels.gradient(k, v, rates, weights, kernel=self.fast_kernel)
        return Delta({"g0": g0, "g1": g1, "g2": g2})

    def settle(self, state: State, delta: Delta) -> tuple[State, bool]:
        sweep = state.numbers["sweep"] + 1
        settled = self._step(state, delta, 1.0).updated({}, sweep=sweep)
        return settled, sweep < state.numbers["sweeps"]

    def extend(self, state: State, delta: Delta, share: float) -> State:
        """One step of the same rule from the settled weights, ``share`` as long."""
        return self._step(state, delta, share)

    def _step(self, state: State, delta: Delta, share: float) -> State:
        weights, gradients, norms = (
            Weights(*(source[f"{letter}{i}"] for i in range(3)))
            for source, letter in ((state.tensors, "w"), (delta.sums, "g"), (state.tensors, "norm"))
        )
        with as_given(weights.w0.device):
            moved = fast_weights.update(weights, gradients, norms, self.newton_schulz, share)
        return state.updated(moved._asdict())

    def _find(self, x: Tensor, state: State) -> Tensor:
        with as_given(x.device):
            weights = Weights(state["w0"], state["w1"], state["w2"])
            return kernels.apply(x, weights, kernel=self.fast_kernel)

    def recall(self, projection: Projection, state: State) -> Tensor | None:
        return agreement(self._find(projection["k"], state), projection["v"], projection)

    def read(self, projection: Projection, state: State) -> Tensor:
        out = self._find(projection["q"], state)
        if self.gate is not None:
            out = out * projection["gate"].to(out.dtype)
        mixed: Tensor = self.proj(merge_heads(out, projection).to(self.proj.weight.dtype))
        return mixed
