"""Presets: the sizes of a model, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vggt3 import checks


@dataclass(frozen=True)
class EncoderConfig:
    """A DINOv2-style ViT with patches of 14 pixels."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    registers: int = 4
    """Register tokens after the class token (0 for a plain DINOv2)."""
    position_grid: int = 37
    """Side of the learned position grid, in patches."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a whole model (of ``vggt_1b`` as published)."""

    preset: str
    """Name the sizes go by in files and messages."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    width: int = 1024
    """C: channels of the aggregator; a Linear follows the encoder where its width differs."""
    layers: int = 24
    """L: pairs of frame block and global block."""
    heads: int = 16
    """H: attention heads of the aggregator."""
    registers: int = 4
    """Register tokens a view, beside its camera token."""
    feature_layers: tuple[int, int, int, int] = (4, 11, 17, 23)
    """Layers (from 0) whose tokens the dense heads read."""
    camera_depth: int = 4
    """Blocks in the camera head's trunk."""
    camera_heads: int = 16
    """Attention heads of the camera head (width 2C)."""
    camera_iterations: int = 4
    """Refinements of the pose."""
    dense_features: int = 256
    """Channels of the dense heads' fusion blocks."""
    dense_projections: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    """Channels of the four features after the dense heads' 1×1 projections."""
    dense_output: int = 32
    """Channels before the dense heads' last 1×1."""
    layer_scale: float = 0.01
    """Where a new model's LayerScales begin; trained weights bring their own."""
    pixel_offset: float = 0.0
    """Where a pixel's ray passes through it when depth is unprojected: 0 (the public heads'
    integer convention) or 0.5 (its centre)."""
    long_side: int = 518
    """Long side in pixels that the weights were trained for."""

    @property
    def special(self) -> int:
        """Tokens of a view in front of its patches: the camera token and the registers."""
        return 1 + self.registers

    def to_data(self) -> dict[str, Any]:
        """Plain data for a file header."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ModelConfig:
        """The inverse of :meth:`to_data`; data only, nothing in it is imported.

        Raises:
            DataError: a field that is missing, unknown, or of another type.
        """
        values = dict(data)
        encoder = values.pop("encoder", None)
        checks.require(
            isinstance(encoder, Mapping),
            "model config",
            "describe the encoder",
            encoder,
            error=checks.DataError,
        )
        built = _build(EncoderConfig, encoder)
        for name in ("feature_layers", "dense_projections"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return _build(cls, {**values, "encoder": built})


KINDS: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


def _build(cls: type[Any], values: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(cls)}
    if set(values) != known:
        odd = sorted(set(values) ^ known)
        checks.fail(
            "model config", f"have the fields of {cls.__name__}", odd, error=checks.DataError
        )
    for f in fields(cls):
        wanted = KINDS.get(str(f.type))
        if wanted is not None and not isinstance(values[f.name], wanted):
            checks.fail(
                f"model config {f.name}",
                f"be {f.type}",
                repr(values[f.name]),
                error=checks.DataError,
            )
    return cls(**values)


VGGT_1B = ModelConfig("vggt_1b")
"""The public checkpoints' size: 0.9 billion parameters beside the encoder's 0.3."""

SMALL = ModelConfig(
    "small",
    encoder=EncoderConfig(width=384, depth=12, heads=6, registers=0),
    width=192,
    layers=9,
    heads=3,
    feature_layers=(2, 4, 6, 8),
    camera_depth=1,
    camera_heads=6,
    dense_features=48,
    dense_projections=(48, 64, 96, 96),
    layer_scale=1.0,  # at 0.01, 1700 steps left the MLPs at 0.004: as good as not there
    pixel_offset=0.5,
    long_side=224,
)
"""What ships with the package: a ViT-S/14 encoder and at most 15 M parameters beside it."""

TINY = ModelConfig(
    "tiny",
    encoder=EncoderConfig(width=64, depth=2, heads=2, registers=0, position_grid=16),
    width=64,
    layers=4,
    heads=2,
    feature_layers=(0, 1, 2, 3),
    camera_depth=1,
    camera_heads=4,
    dense_features=32,
    dense_projections=(16, 32, 64, 64),
    pixel_offset=0.5,
    long_side=224,
)
"""For tests and for looking at the machinery; never trained."""

PRESETS: Mapping[str, ModelConfig] = {c.preset: c for c in (VGGT_1B, SMALL, TINY)}


def preset(name: str) -> ModelConfig:
    """The sizes called ``name``.

    Raises:
        UsageError: an unknown name (lists the known ones and the nearest).
    """
    return PRESETS[checks.choose("--preset", name, PRESETS)]
