"""Each backend once more, written from its equation alone: float64, loops where they are plainest.

Nothing of the package's arithmetic is used but the two pairwise references of softmax and linear
attention. The fast-weight gradient is autograd's, Newton–Schulz acts on singular values, RoPE
multiplies complex numbers, and the short convolution adds shifted copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu, softplus

from tests.attention.variants import Case
from vggt3.attention.base import Backend
from vggt3.attention.kernels.softmax import attend_reference
from vggt3.attention.linear import linear_attention_reference
from vggt3.attention.registry import LayerSpec

Parameters = dict[str, Tensor]


def turned(
    x: Tensor,  # [B, H, V, P, D]
    case: Case,
) -> Tensor:
    """RoPE: the pair (i, i + d/4) of each half is a complex number, turned by its angle."""
    rows, columns = case.context.grid
    special, half = x.shape[3] - rows * columns, x.shape[4] // 2
    places = [(0, 0)] * special
    places += [(r + 1, c + 1) for r in range(rows) for c in range(columns)]
    out = torch.empty_like(x)
    for token, place in enumerate(places):
        for axis, position in enumerate(place):
            for i in range(half // 2):
                first, second = axis * half + i, axis * half + half // 2 + i
                angle = position * 100.0 ** (-2 * i / half)
                pair = torch.complex(x[:, :, :, token, first], x[:, :, :, token, second])
                pair = pair * complex(math.cos(angle), math.sin(angle))
                out[:, :, :, token, first] = pair.real
                out[:, :, :, token, second] = pair.imag
    return out


def projected(parameters: Parameters, case: Case, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v as [B, H, V, P, D]; the layer's outputs are laid out [q|k|v] × head × width."""
    flat = linear(case.tokens, parameters["qkv.weight"], parameters["qkv.bias"])
    q, k, v = flat.split(case.tokens.shape[-1], dim=-1)
    batch, views, tokens, width = q.shape
    shape = (batch, views, tokens, heads, width // heads)
    return tuple(x.reshape(shape).permute(0, 3, 1, 2, 4) for x in (q, k, v))


def normed(x: Tensor, parameters: Parameters, name: str) -> Tensor:
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return layer_norm(x, x.shape[-1:], weight, bias, eps=1e-5)


def beside(x: Tensor) -> Tensor:
    """[B, H, V, P, D] → heads side by side: [B, V, P, C], channels as [head, head width]."""
    return x.permute(0, 2, 3, 1, 4).flatten(3)


def by_heads(x: Tensor, heads: int) -> Tensor:
    """[B, V, P, C] → [B, H, V, P, D]."""
    return x.reshape(*x.shape[:3], heads, -1).permute(0, 3, 1, 2, 4)


def joined(out: Tensor, parameters: Parameters) -> Tensor:
    """[B, H, V, P, D] → heads side by side, output projection → [B, V, P, C]."""
    return linear(beside(out), parameters["proj.weight"], parameters["proj.bias"])


def weights_of(case: Case) -> Tensor:
    """[B, V, P]"""
    if case.context.weight is None:
        return torch.ones(case.tokens.shape[:3], dtype=case.tokens.dtype)
    return case.context.weight


def farthest(descriptors: Tensor, count: int) -> list[int]:
    """Key views [V, E] → places: the first, then always the one farthest from those chosen."""
    chosen = [0]
    while len(chosen) < min(count, len(descriptors)):
        nearest = {
            n: min(float((descriptors[n] - descriptors[m]).norm()) for m in chosen)
            for n in range(len(descriptors))
            if n not in chosen
        }
        chosen.append(max(nearest, key=lambda n: nearest[n]))
    return chosen


def softmax(
    parameters: Parameters, case: Case, heads: int, options: dict[str, object], descriptors: Tensor
) -> Tensor:
    q, k, v = projected(parameters, case, heads)
    q = turned(normed(q, parameters, "q_norm"), case)
    k = turned(normed(k, parameters, "k_norm"), case)
    weight, count = weights_of(case), options.get("max_views")
    scenes = []
    for b in range(len(q)):  # scenes may choose different key views
        keys = list(range(q.shape[2]))
        if isinstance(count, int):
            keys = farthest(descriptors[b], count)
        out = attend_reference(
            q[b : b + 1].flatten(2, 3),
            k[b : b + 1, :, keys].flatten(2, 3),
            v[b : b + 1, :, keys].flatten(2, 3),
            weight[b : b + 1, keys].flatten(1).log(),
        )
        scenes.append(out.reshape(q[b : b + 1].shape))
    return joined(torch.cat(scenes), parameters)


def linear_backend(
    parameters: Parameters, case: Case, heads: int, options: dict[str, object], descriptors: Tensor
) -> Tensor:
    q, k, v = projected(parameters, case, heads)
    q = turned(normed(q, parameters, "q_norm"), case)
    k = turned(normed(k, parameters, "k_norm"), case)
    flat = [x.flatten(2, 3) for x in (q, k, v)]
    out = linear_attention_reference(flat[0], flat[1], flat[2], weights_of(case).flatten(1))
    return joined(out.reshape(q.shape), parameters)


def gated_linear(
    parameters: Parameters, case: Case, heads: int, options: dict[str, object], descriptors: Tensor
) -> Tensor:
    """The tutorial's plug-in: linear attention without norms, whose keys are gated by the head."""
    q, k, v = (x.flatten(2, 3) for x in projected(parameters, case, heads))
    shape = (*q.shape[:2], case.tokens.shape[1], case.tokens.shape[2], q.shape[3])
    q, k = (turned(x.reshape(shape), case).flatten(2, 3) for x in (q, k))
    gate = torch.sigmoid(linear(case.tokens, parameters["gate.weight"], parameters["gate.bias"]))
    gate = (gate * weights_of(case)[..., None]).flatten(1, 2)  # [B, N, H]
    out = [
        linear_attention_reference(q[:, h, None], k[:, h, None], v[:, h, None], gate[..., h])
        for h in range(heads)
    ]
    return joined(torch.cat(out, dim=1).reshape(shape), parameters)


def convolved(
    v: Tensor,  # [B, V, P, C]
    kernel: Tensor,  # [C, 1, side, side]
    grid: tuple[int, int],
) -> Tensor:
    """Each patch's value replaced by the weighted sum of those around it, zero outside."""
    rows, columns = grid
    special, side = v.shape[2] - rows * columns, kernel.shape[-1]
    patches = v[:, :, special:].reshape(*v.shape[:2], rows, columns, -1)
    mixed = torch.zeros_like(patches)
    for r in range(rows):
        for c in range(columns):
            for i in range(side):
                for j in range(side):
                    y, x = r + i - side // 2, c + j - side // 2
                    if 0 <= y < rows and 0 <= x < columns:
                        step = torch.zeros_like(mixed)
                        step[:, :, r, c] = patches[:, :, y, x] * kernel[:, 0, i, j]
                        mixed = mixed + step
    return torch.cat([v[:, :, :special], mixed.flatten(2, 3)], dim=2)


def towards_orthogonal(gradient: Tensor, steps: int) -> Tensor:
    """Newton–Schulz is an odd polynomial of the singular values."""
    left, values, right = torch.linalg.svd(gradient, full_matrices=False)
    values = values / (values.square().sum().sqrt() + 1e-7)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


def fast_weights(
    k: Tensor,  # [N, d]
    v: Tensor,  # [N, d]
    rates: Tensor,  # [N, 3]
    start: list[Tensor],
    sweeps: int,
    steps: int,
) -> list[Tensor]:
    """One head of one scene, trained as FACTS section 1 says, with autograd's gradients."""
    matrices = [w.clone() for w in start]
    for _ in range(sweeps):
        moved = []
        for index in range(3):
            leaves = [w.detach().requires_grad_() for w in matrices]
            w0, w1, w2 = leaves
            answers = (silu(k @ w0) * (k @ w2)) @ w1
            objective = (rates[:, index] * (answers * v).sum(dim=-1)).sum()
            (gradient,) = torch.autograd.grad(objective, [leaves[index]])
            moved.append(matrices[index] + towards_orthogonal(gradient, steps))
        matrices = [
            torch.stack(
                [
                    w[:, n] * initial[:, n].norm() / (w[:, n].norm() + 1e-5)
                    for n in range(w.shape[1])
                ],
                dim=1,
            )
            for w, initial in zip(moved, start, strict=True)
        ]
    return matrices


def kernels(parameters: Parameters) -> tuple[Tensor | None, ...]:
    """Of the convolutions of q, k and v, where there are."""
    names = ("conv_q.weight", "conv_k.weight", "conv.weight")
    return tuple(parameters.get(name) for name in names)


def ttt(
    parameters: Parameters, case: Case, heads: int, options: dict[str, object], descriptors: Tensor
) -> Tensor:
    tokens = case.tokens
    q, k, v = (
        x if kernel is None else by_heads(convolved(beside(x), kernel, case.context.grid), heads)
        for x, kernel in zip(projected(parameters, case, heads), kernels(parameters), strict=True)
    )
    q, k, v = turned(silu(q), case), turned(silu(k), case), silu(v)
    q, k = (x / (x.norm(dim=-1, keepdim=True) + 1e-5) for x in (q, k))
    rates = torch.full((*tokens.shape[:3], 3 * heads), 0.01, dtype=tokens.dtype)
    if options.get("rates", "learned") == "learned":
        rates = linear(tokens, parameters["rates.weight"], parameters["rates.bias"])
        rates = softplus(rates + math.log(math.exp(0.01) - 1))  # [B, V, P, 3·H] as [rate, head]
    rates = rates * weights_of(case)[..., None]
    sweeps, steps = options.get("sweeps", 2), options.get("newton_schulz", 5)
    assert isinstance(sweeps, int) and isinstance(steps, int)
    out = torch.empty_like(q)
    for b in range(len(q)):
        for h in range(heads):
            start = [parameters[f"w{n}"][h] for n in range(3)]
            own = torch.stack([rates[b, :, :, n * heads + h].flatten() for n in range(3)], dim=-1)
            settled = fast_weights(
                k[b, h].flatten(0, 1), v[b, h].flatten(0, 1), own, start, sweeps, steps
            )
            w0, w1, w2 = settled
            out[b, h] = (silu(q[b, h] @ w0) * (q[b, h] @ w2)) @ w1
    if options.get("gate", False):
        gate = linear(tokens, parameters["gate.weight"], parameters["gate.bias"])
        out = out * by_heads(gate * torch.sigmoid(gate), heads)
    return joined(out, parameters)


Equation = Callable[[Parameters, Case, int, dict[str, object], Tensor], Tensor]

EQUATIONS: dict[str, Equation] = {
    "softmax": softmax,
    "linear": linear_backend,
    "ttt_mlp": ttt,
    "ttt_shortconv": ttt,
    "gated_linear": gated_linear,
}


def reference(spec: LayerSpec, backend: Backend, case: Case, descriptors: Tensor) -> Tensor:
    """What the backend must give for all views at once: [B, V, P, C]."""
    parameters = {k: t.detach().double() for k, t in backend.state_dict().items()}
    equation = EQUATIONS[spec.name]
    return equation(parameters, case, backend.heads, dict(spec.options), descriptors)
