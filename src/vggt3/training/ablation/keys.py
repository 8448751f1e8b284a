"""What makes two trainings, or two rows of an ablation, the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vggt3 import checks
from vggt3.attention.registry import LayerSpec, all_options, plan_layers
from vggt3.model.opening import find_adapter, find_backbone, overridden, same_tensors
from vggt3.model.weight_files import Header, read_header
from vggt3.training.ablation.settings import Ablation, RowSettings

EXAM_SWEEPS = 2
"""What ``auto`` sweeps are in the exam: scenes have fewer than 1000 views."""
ALIKE = ("compile", "record", "checkpointing", "workers", "val_recipe", "val_batches", "val_seed")
"""Settings of how a step is computed, not of what it computes: they make no other training."""


def spelled(specs: tuple[LayerSpec, ...]) -> list[Any]:
    """Backends and all their options, the defaults too: equal for layers that are equal."""
    return [[spec.name, all_options(spec)] for spec in specs]


def hashed(data: Any) -> str:
    """Ten hexadecimal digits that stand for plain data."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class Keys:
    """What makes two trainings, or two rows, the same."""

    def __init__(self, ablation: Ablation, scenes: str) -> None:
        """``scenes`` says in words what is learned from.

        Raises:
            InputError: no such backbone.
        """
        self.path = find_backbone(ablation.weights)
        self.backbone = read_header(self.path)
        self.config = self.backbone.model
        self._adapters: dict[str, tuple[Path, Header]] = {}
        training = asdict(ablation.training)
        del training["report_every"]
        training["data"].pop("textures")
        for group in ("data", "learning"):
            training[group] = {k: v for k, v in training[group].items() if k not in ALIKE}
        self.training = {**training, "scenes": scenes}
        self.timing = [sorted(ablation.exam.scenes), ablation.exam.repeat]

    def specs(self, row: RowSettings, examined: bool = True) -> tuple[LayerSpec, ...]:
        """Each layer's backend and options, in the exam or in training.

        Raises:
            UsageError: a backend or option that does not exist; says which row's.
        """
        try:
            options = row.examined if examined else row.options
            planned = plan_layers(row.attention, options, self.config.layers)
            if row.train:
                return planned
            return tuple(self._shipped(spec, layer) for layer, spec in enumerate(planned))
        except checks.UsageError as error:
            raise checks.UsageError(f"row '{row.name}': {error}") from error

    def _shipped(self, spec: LayerSpec, layer: int) -> LayerSpec:
        """A layer of an adapter as it ships, with the options given."""
        return overridden(*self._adapter(spec.name), layer, dict(spec.options))

    def check(self, row: RowSettings) -> None:
        """Hold a row to its backends before anything is trained.

        Raises:
            UsageError: a value that a backend refuses, or an option that cannot wait for the exam,
                since the trained tensors depend on it.
        """
        pairs = zip(self.specs(row, False), self.specs(row), strict=True)
        for before, after in dict.fromkeys(pairs):
            try:
                same = same_tensors(before, after, self.config.width, self.config.heads)
            except checks.UsageError as error:
                raise checks.UsageError(f"row '{row.name}': {error}") from error
            told = "leave the trained tensors as they are (else it belongs into options)"
            checks.require(same, f"inference of row '{row.name}'", told, row.inference)

    def fit(self, row: RowSettings) -> str:
        """Of the training that a row needs.

        Raises:
            InputError: the backbone has no adapter to begin from, or to score as it ships.
        """
        specs = self.specs(row, False)
        needed = ["softmax"] if row.train else sorted({spec.name for spec in specs})
        adapters = [self._adapter(name)[1].content for name in needed]
        training = [row.start, self.training] if row.train else None
        return hashed([self.backbone.fingerprint, adapters, spelled(specs), training])

    def _adapter(self, name: str) -> tuple[Path, Header]:
        """An adapter of the backbone's, and what it says of itself."""
        if name not in self._adapters:
            path = find_adapter(name, self.path, self.backbone, "the adapter of a row")
            self._adapters[name] = path, read_header(path)
        return self._adapters[name]

    def row(self, row: RowSettings) -> str:
        """Of the row itself."""
        return hashed([self.fit(row), self._examined(row)])

    def time(self, row: RowSettings) -> str:
        """Of what a row's time depends on: the weights are none of it."""
        return hashed([asdict(self.config), self._examined(row), self.timing])

    def _examined(self, row: RowSettings) -> list[Any]:
        specs = spelled(self.specs(row))
        for _, options in specs:
            if options.get("sweeps") == "auto":
                options["sweeps"] = EXAM_SWEEPS
        return specs
