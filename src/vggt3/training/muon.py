"""Muon (Jordan 2024; scaled as in arXiv 2502.16982): matrices move by orthogonalised momentum.

torch.optim.Muon works through its matrices one by one: 80 of them were 2,500 launches, half of
a training step's time on an H100. Here all matrices of one shape are orthogonalised together, to
the same numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from vggt3.attention.fast_weights import newton_schulz

STEPS = 5


class Muon(torch.optim.Optimizer):
    """W ← (1 − lr·decay)·W − lr·0.2·√max(rows, columns)·NS5(Nesterov momentum of the gradient).

    The factor gives a step the length of AdamW's, so that one learning rate serves both.
    """

    found_inf: Tensor | None = None
    """Above 0 where a step is to move nothing; never waited for."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ) -> None:
        """Args:
        params: matrices [rows, columns], or groups of them.
        lr: learning rate.
        weight_decay: decoupled, times ``lr``.
        momentum: of the gradient's running mean.
        """
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of every matrix that has a gradient; none of any where :attr:`found_inf`, a
        tensor on its device, is above 0, as with PyTorch's fused optimizers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if moving:
                self._move(moving, group["lr"], group["weight_decay"], group["momentum"])
        return loss

    def _move(
        self, moving: list[Tensor], lr: float | Tensor, decay: float, momentum: float
    ) -> None:
        gradients = [p.grad for p in moving if p.grad is not None]
        for p in moving:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        means = [self.state[p]["momentum_buffer"] for p in moving]
        if self.found_inf is not None:
            held = self.found_inf > 0
            gradients = [torch.where(held, m, g) for m, g in zip(means, gradients, strict=True)]
            lr = torch.where(held, 0.0, lr)
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, means, momentum)
        torch._foreach_mul_(moving, 1 - lr * decay)
        for places in _by_shape(moving).values():
            shape = moving[places[0]].shape
            # As torch.optim.Muon has it: rounding to bf16 is noise to an iteration that
            # aims at singular values between 0.7 and 1.2.
            stacked = torch.stack([ahead[n] for n in places]).to(torch.bfloat16)
            turned = newton_schulz(stacked, STEPS).to(moving[places[0]].dtype)
            turned = turned * (lr * 0.2 * max(shape) ** 0.5)
            torch._foreach_sub_([moving[n] for n in places], list(turned.unbind()))


def _by_shape(tensors: list[Tensor]) -> dict[torch.Size, list[int]]:
    found: dict[torch.Size, list[int]] = defaultdict(list)
    for number, tensor in enumerate(tensors):
        found[tensor.shape].append(number)
    return found


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for all else, with one learning rate, course and decay."""

    found_inf: Tensor | None = None
    """Above 0 where a step is to move nothing; never waited for on a GPU."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        """Args:
        groups: parameters, and the decay of each group.
        lr: of the first step.
        betas: AdamW's.
        """
        flat, rest = (
            [g for g in split if g["params"]]
            for split in (
                [{**g, "params": [p for p in g["params"] if (p.dim() == 2) == two]} for g in groups]
                for two in (True, False)
            )
        )
        super().__init__([*map(dict, flat), *map(dict, rest)], {"lr": lr})
        self.parts: list[torch.optim.Optimizer] = []
        if flat:
            self.parts.append(Muon(flat, lr=lr))
        if rest:
            on_gpu = rest[0]["params"][0].is_cuda
            self.parts.append(torch.optim.AdamW(rest, lr=lr, betas=betas, fused=on_gpu or None))
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self._share()

    def _share(self) -> None:
        """One state and one list of groups, which each part sees its own of."""
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.state, part.param_groups = self.state, self.param_groups[first:last]
            first = last

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            if isinstance(part, Muon) or part.defaults["fused"]:
                part.found_inf = self.found_inf  # type: ignore[attr-defined]
            elif self.found_inf is not None and bool(self.found_inf):
                continue
            part.step()
        return loss
