"""Which model made a scene: only that one can read it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from vggt3 import checks
from vggt3.attention.registry import KERNEL_OPTIONS, LayerSpec, all_options, runs_of
from vggt3.model import names
from vggt3.model.config import ModelConfig
from vggt3.model.vggt3 import VGGT3
from vggt3.model.weights import fingerprint

DIGITS = 16
"""Of a fingerprint that an error shows."""


@dataclass(frozen=True)
class ModelIdentity:
    """A backbone and an adapter by their fingerprints (:mod:`vggt3.model.weights`)."""

    config: ModelConfig
    backbone: str
    """SHA-256 of all tensors but the global attention's."""
    adapter: str
    """SHA-256 of the global attention's tensors."""
    layers: tuple[LayerSpec, ...]
    """Backend and options of each global layer."""

    @property
    def attention(self) -> str:
        """The backends' names, joined."""
        return "+".join(dict.fromkeys(spec.name for spec in self.layers))

    @property
    def schedule(self) -> str:
        """The backends' names by layer: ``softmax``, or ``0-4:ttt_mlp,5-8:softmax``."""
        runs = runs_of(self.layers)
        if len(runs) == 1:
            return self.attention
        return ",".join(f"{a}:{name}" if a == b else f"{a}-{b}:{name}" for a, b, name in runs)

    def to_data(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {
            "config": self.config.to_data(),
            "backbone": self.backbone,
            "adapter": self.adapter,
            "layers": [{"name": x.name, "options": dict(x.options)} for x in self.layers],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ModelIdentity:
        """The inverse of :meth:`to_data`."""
        layers = tuple(LayerSpec.of(x["name"], x["options"]) for x in data["layers"])
        config = ModelConfig.from_data(data["config"])
        return cls(config, str(data["backbone"]), str(data["adapter"]), layers)

    def hold(self, found: ModelIdentity, name: str = "the model") -> None:
        """Raise DataError unless ``found`` is the model that is meant.

        Options that leave tensors alone (sweeps, kernels) may differ.
        """
        for what, mine, other in (
            ("sizes", self.config.preset, found.config.preset),
            ("backbone", self.backbone, found.backbone),
            ("global attention", self.schedule, found.schedule),
            ("adapter", self.adapter, found.adapter),
        ):
            digits = DIGITS if what in ("backbone", "adapter") else None
            same = mine == other and (what != "sizes" or self.config == found.config)
            checks.require(
                same,
                name,
                f"have the {what} that the scene was mapped with ({mine[:digits]})",
                other[:digits],
                error=checks.DataError,
            )

    def differences(self, found: ModelIdentity) -> Iterator[tuple[int, str, Any, Any]]:
        """Layer, option, its value here and in ``found``, of every option that differs, but for
        kernels."""
        for layer, (mine, other) in enumerate(zip(self.layers, found.layers, strict=True)):
            theirs = all_options(other)
            for option, value in all_options(mine).items():
                if option not in KERNEL_OPTIONS and theirs.get(option) != value:
                    yield layer, option, value, theirs.get(option)


_KNOWN: WeakKeyDictionary[VGGT3, tuple[tuple[Any, ...], ModelIdentity]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def identity_of(model: VGGT3) -> ModelIdentity:
    """The identity of a model as it is now. Hashing 0.9 billion numbers takes seconds, so it is
    done again only where a tensor was replaced or written to."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    mark = tuple(
        (t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in tensors.values()
    )
    with _LOCK:
        known = _KNOWN.get(model)
        if known is not None and known[0] == mark and known[1].layers == model.specs:
            return known[1]
        stored = model.state_dict()
        attention = {
            f"attention.{name}": t for name, t in stored.items() if names.is_adapter(name)
        }  # under names that the fingerprint of a backbone does not pass over
        found = ModelIdentity(
            model.config, fingerprint(stored), fingerprint(attention), model.specs
        )
        _KNOWN[model] = mark, found
        return found
