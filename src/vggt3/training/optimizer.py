"""AdamW or Muon, the groups that decay, and the learning rate's course."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from vggt3 import checks
from vggt3.attention.ttt_mlp import START
from vggt3.training.muon import MuonAndAdamW

UNDECAYED = (
    "camera_token", "register_token", "empty_pose", "class_token", "registers", "position", *START,
)  # fmt: skip
"""Learned tokens, which like norms, biases and scales are no matrices to be kept small; and what
fast weights begin as, whose columns' lengths say how far a write takes them."""

METHODS = ("adamw", "muon")


@dataclass(frozen=True)
class OptimizerOptions:
    """How the weights move (as in arXiv 2602.23361; ``lr`` for an adapter)."""

    method: str = "adamw"
    """adamw, or muon: Muon for the matrices, each step as long as AdamW's, AdamW for the rest."""
    lr: float = 1e-4
    """Highest learning rate."""
    lr_encoder: float = 0.1
    """Learning rate of the encoder, where it learns, as a share of the others': it was trained
    before, on photographs, and is to be bent, not replaced (1 for one of random numbers)."""
    lr_last: float = 0.02
    """Learning rate at the end, as a share of the highest."""
    decay: float = 1.0
    """Share of the run, at its end, over which the learning rate falls on a cosine; 0 is never."""
    warmup: int = 1000
    """Steps until the highest learning rate, at most a tenth of a run of known length."""
    weight_decay: float = 0.05
    """On matrices only."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's; Muon's momentum is 0.95."""
    clip: float = 1.0
    """Longest gradient (L2 norm over all parameters); 0 clips nothing."""

    def __post_init__(self) -> None:
        checks.choose("--optimizer.method", self.method, METHODS)
        checks.require(self.lr > 0, "--optimizer.lr", "be positive", self.lr)
        for name in ("lr_last", "lr_encoder"):
            value = getattr(self, name)
            checks.require(0 <= value <= 1, f"--optimizer.{name}", "be between 0 and 1", value)
        checks.require(0 <= self.decay <= 1, "--optimizer.decay", "be between 0 and 1", self.decay)
        checks.require(self.warmup >= 0, "--optimizer.warmup", "be at least 0", self.warmup)
        checks.require(
            self.weight_decay >= 0, "--optimizer.weight_decay", "be at least 0", self.weight_decay
        )
        fit = all(0 <= beta < 1 for beta in self.betas)
        checks.require(fit, "--optimizer.betas", "be at least 0 and below 1", self.betas)
        checks.require(self.clip >= 0, "--optimizer.clip", "be at least 0", self.clip)

    def rate(self, step: int, progress: float, steps: int | None = None) -> float:
        """The learning rate of ``step`` (from 0) with ``progress`` in [0, 1] of the run done."""
        warmup = self.warmup if steps is None else min(self.warmup, math.ceil(steps / 10))
        rise = min(1.0, (step + 1) / max(1, warmup))
        left = 1 - min(max(progress, 0.0), 1.0)
        fallen = 1 - left / self.decay if left < self.decay else 0.0
        fall = 0.5 * (1 + math.cos(math.pi * fallen))
        return self.lr * rise * (self.lr_last + (1 - self.lr_last) * fall)


def parameter_groups(
    model: nn.Module, weight_decay: float, encoder: float = 1.0
) -> list[dict[str, Any]]:
    """The learning parameters: matrices (decayed) and the rest, those of the encoder apart.

    Each group's ``share`` is that of the learning rate which it takes: ``encoder`` of the
    encoder's, 1 of all others, which stand first.
    """
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (of_encoder, plain): [] for of_encoder in (False, True) for plain in (False, True)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.dim() < 2 or name.rsplit(".", 1)[-1] in UNDECAYED
            found[name.startswith("encoder."), plain].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if plain else weight_decay,
            "share": encoder if of_encoder else 1.0,
        }
        for (of_encoder, plain), parameters in found.items()
        if parameters
    ]


def build(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer of what learns in ``model``; AdamW in one fused kernel on a GPU, also where it
    goes on from what one on a CPU has left.

    Raises:
        UsageError: nothing learns.
    """
    groups = parameter_groups(model, options.weight_decay, options.lr_encoder)
    checks.require(bool(groups), "the model", "have something that learns", "none")
    if options.method == "muon":
        spread = any(isinstance(p, DTensor) for group in groups for p in group["params"])
        told = "stand without spread weights: it needs whole matrices"
        checks.require(not spread, "--optimizer.method muon", told, "ModelParallelStrategy")
        return _staying(MuonAndAdamW(groups, options.lr, options.betas))
    first = groups[0]["params"][0]
    on_gpu = first.is_cuda and not isinstance(first, DTensor)  # found_inf is no DTensor
    made = torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, fused=on_gpu or None)
    return _staying(made)


def _staying(made: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Whether steps are fused is said by where the weights lie, and a group's share of the rate by
    the options, not by a state that is loaded."""

    def keep(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [dict(saved) for saved in state["param_groups"]]
        told, wanted = "the optimizer's state", len(optimizer.param_groups)
        fit = len(groups) == wanted
        checks.require(fit, told, f"be of {wanted} groups", len(groups), error=checks.DataError)
        for group, own in zip(groups, optimizer.param_groups, strict=True):
            group |= {name: own[name] for name in ("fused", "share") if name in own}
        return {**state, "param_groups": groups}

    made.register_load_state_dict_pre_hook(keep)
    return made
