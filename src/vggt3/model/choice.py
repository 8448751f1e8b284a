"""Which model is meant: the options that every command with a model has. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vggt3 import checks


@dataclass(frozen=True)
class ModelChoice:
    """Weights by name or file, or a preset with random weights."""

    weights: str | None = None
    """Backbone: a file, a folder that holds one, or the name of one that ships (default:
    small)."""
    adapter: str | None = None
    """Global attention for it: a file, or the NAME in BACKBONE.NAME.safetensors; several,
    separated by commas, are composed layer by layer (default: what --attention names)."""
    attention: str | None = None
    """Backend of the global attention (default: the adapter's, else ttt_shortconv, or softmax
    where the backbone has no adapter of that)."""
    attention_options: dict[str, Any] = field(default_factory=dict)
    """An option of the backend, such as --attention.sweeps 2, or --attention.schedule
    '0-3:softmax,4-8:ttt_shortconv'."""
    preset: str | None = None
    """A model of this size with random weights, in place of --weights."""
    seed: int = 0
    """Of the random weights of --preset."""

    def __post_init__(self) -> None:
        schedule = self.attention_options.get("schedule")
        if schedule is not None and self.attention is not None:
            names = [part.rpartition(":")[2].strip() for part in str(schedule).split(",")]
            told = f"be a backend of --attention.schedule ({', '.join(names)}), or be left out"
            checks.require(self.attention in names, "--attention", told, f"'{self.attention}'")
        checks.require(0 <= self.seed < 2**63, "--seed", "be between 0 and 2⁶³ - 1", self.seed)
        for name in ("weights", "adapter"):
            checks.require(
                self.preset is None or getattr(self, name) is None,
                "--preset",
                f"stand alone, since its weights are random: leave --{name} out",
                self.preset,
            )
