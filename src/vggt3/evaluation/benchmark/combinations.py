"""What is measured: every combination of backends, numbers of views, sweeps and sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from vggt3 import checks
from vggt3.attention.registry import DEFAULT, options_of, plan_layers, table
from vggt3.model.choice import ModelChoice
from vggt3.model.config import ModelConfig, preset
from vggt3.model.opening import find_adapter, find_backbone
from vggt3.model.weight_files import read_header
from vggt3.types import PATCH

ASPECT = 28 / 37
"""Height over width of a photo where no size is given."""
Sweeps = int | str | None


@dataclass(frozen=True)
class Variant:
    """One backend (or schedule) at one number of sweeps."""

    attention: str
    """Its name, or the schedule."""
    sweeps: Sweeps
    """``auto`` or a number; None where the backend has no sweeps."""
    options: tuple[tuple[str, Any], ...]
    """The others that were given and that it has."""
    choice: ModelChoice
    """The model to open."""


@dataclass(frozen=True)
class Combinations:
    """What is measured, each list separated by commas."""

    weights: str | None = None
    """Backbone to measure, as for reconstruct; each backend then needs its adapter."""
    preset: str | None = None
    """A model of this size with random weights, in place of --weights, which are as fast as
    trained ones (default: vggt_1b on a GPU, else small)."""
    seed: int = 0
    """Of random weights and of the images."""
    attention: str = f"softmax,{DEFAULT}"
    """Backends."""
    attention_options: dict[str, Any] = field(default_factory=dict)
    """An option for the backends that have it, such as --attention.hidden 2, or
    --attention.schedule '0-3:softmax,4-8:ttt_shortconv' in place of --attention."""
    views: str = ""
    """Numbers of views (default: 100,500,1000 on a GPU, else 2,4,8,16)."""
    sweeps: str = "1,2"
    """Sweeps of the backends that have them: numbers, or auto."""
    size: str = ""
    """Image sizes, height × width in multiples of 14, such as 392x518 (default: as wide as the
    model was trained for, 4:3)."""
    repeat: int = 3
    """Timed runs of a combination, after one to warm up; the median counts."""

    def __post_init__(self) -> None:
        checks.require(
            self.preset is None or self.weights is None,
            "--preset",
            "stand alone, since its weights are random: leave --weights out",
            self.preset,
        )
        checks.require(self.repeat >= 1, "--repeat", "be at least 1", self.repeat)
        for name in self._names():
            checks.choose("--attention", name, table())
        checks.require(
            "sweeps" not in self.attention_options,
            "--attention.sweeps",
            "be given as --sweeps, which takes several",
            self.attention_options.get("sweeps"),
        )
        _ = self.view_counts(on_gpu=False), self._sweep_counts(), self._sizes()

    def view_counts(self, on_gpu: bool) -> list[int]:
        """The numbers of views, smallest first."""
        text = self.views or ("100,500,1000" if on_gpu else "2,4,8,16")
        return sorted(_whole("--views", word) for word in _words("--views", text))

    def sizes(self, config: ModelConfig) -> list[tuple[int, int]]:
        """(height, width) of the images, smallest first."""
        width = config.long_side // PATCH * PATCH
        return self._sizes() or [(PATCH * round(width * ASPECT / PATCH), width)]

    def model(self, on_gpu: bool) -> tuple[ModelChoice, ModelConfig]:
        """The model without its attention, and its sizes.

        Raises:
            InputError: weights or a preset that are not there.
        """
        if self.weights is None:
            name = self.preset or ("vggt_1b" if on_gpu else "small")
            return ModelChoice(preset=name, seed=self.seed), preset(name)
        backbone = find_backbone(self.weights)
        return ModelChoice(weights=self.weights), read_header(backbone).model

    def variants(self, on_gpu: bool) -> list[Variant]:
        """Every backend at every number of sweeps.

        Raises:
            UsageError: an option that no backend has, or of a wrong value; a backend for which
                the weights have no adapter.
        """
        base, config = self.model(on_gpu)
        schedule, names = self.attention_options.get("schedule"), self._names()
        rest = {k: v for k, v in self.attention_options.items() if k != "schedule"}
        members = {name: [name] for name in names}
        if schedule is not None:
            specs = plan_layers(DEFAULT, {"schedule": schedule}, config.layers)
            members = {str(schedule): sorted({spec.name for spec in specs})}
        every = {name for held in members.values() for name in held}
        known = {name: set(options_of(name)) for name in every}
        for option in rest:
            checks.choose(
                f"option of {' and '.join(sorted(known))}", option, set().union(*known.values())
            )
        if base.weights is not None:
            backbone = find_backbone(base.weights)
            for name in sorted(every):
                find_adapter(name, backbone, read_header(backbone), "--attention")
        found = []
        for label, held in members.items():
            has = set().union(*(known[name] for name in held))
            options = {k: v for k, v in rest.items() if k in has}
            for sweeps in self._sweep_counts() if "sweeps" in has else [None]:
                given = dict(options) if sweeps is None else {**options, "sweeps": sweeps}
                if schedule is not None:
                    given["schedule"] = schedule
                attention = None if schedule is not None else label
                for spec in set(plan_layers(attention or DEFAULT, given, config.layers)):
                    spec.build(config.width, config.heads, 0)  # which checks the values
                choice = ModelChoice(
                    weights=base.weights,
                    attention=attention,
                    attention_options=given,
                    preset=base.preset,
                    seed=self.seed,
                )
                found.append(Variant(label, sweeps, tuple(sorted(options.items())), choice))
        return found

    def _names(self) -> list[str]:
        return _words("--attention", self.attention)

    def _sweep_counts(self) -> list[Sweeps]:
        words = _words("--sweeps", self.sweeps)
        return [word if word == "auto" else _whole("--sweeps", word, " or auto") for word in words]

    def _sizes(self) -> list[tuple[int, int]]:
        found = []
        for word in _words("--size", self.size) if self.size else []:
            match = re.fullmatch(r"(\d+)[x×](\d+)", word)
            size = (int(match[1]), int(match[2])) if match else (0, 0)
            checks.require(
                min(size) > 0 and not any(side % PATCH for side in size),
                "--size",
                f"be HEIGHTxWIDTH in multiples of {PATCH}, such as 392x518",
                f"'{word}'",
            )
            found.append(size)
        return sorted(found)


def _words(name: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    checks.require(all(words), name, "be a list separated by commas", f"'{text}'")
    return list(dict.fromkeys(words))


def _whole(name: str, word: str, more: str = "") -> int:
    number = int(word) if re.fullmatch(r"\d{1,9}", word) else 0
    checks.require(number >= 1, name, f"be whole numbers from 1{more}", f"'{word}'")
    return number
