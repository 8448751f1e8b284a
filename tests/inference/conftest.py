"""What localisation is tried on: small whole models in which no branch is near zero."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.model.conftest import golden as golden  # a fixture
from vggt3.attention.registry import LayerSpec
from vggt3.inference.options import RunOptions
from vggt3.inference.scene_engine import SceneEngine
from vggt3.model.blocks import LayerScale
from vggt3.model.config import TINY
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

SPECS = [
    LayerSpec("softmax"),
    LayerSpec("softmax", (("max_views", 2),)),
    LayerSpec("linear"),
    LayerSpec("ttt_mlp", (("sweeps", 3),)),
    LayerSpec("ttt_shortconv"),
]
EXTENSIBLE = [spec for spec in SPECS if not spec.options or spec.name != "softmax"]


def label(spec: LayerSpec) -> str:
    return "-".join([spec.name, *(f"{k}={v}" for k, v in spec.options)])


CONFIG = replace(TINY, camera_iterations=2)


def engine_of(spec: LayerSpec, chunk: int | None = None, seed: int = 0) -> SceneEngine:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VGGT3(CONFIG, (spec,) * CONFIG.layers).eval()
        for module in model.modules():
            if isinstance(module, LayerScale):  # near zero they would hide every error
                torch.nn.init.uniform_(module.gamma, 0.3, 1.0)
        for token in (model.aggregator.camera_token, model.aggregator.register_token):
            torch.nn.init.normal_(token)  # so that whose tokens a view has can be seen
    return SceneEngine(model, RunOptions("cpu", chunk=chunk, points_from="head"))


def questions(count: int = 3, seed: int = 5) -> Views:
    """Photos of two sizes that no scene of these tests has seen."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(28, 42), (42, 28), (28, 42), (28, 28)]
    return Views.from_list(
        [torch.rand(3, *sizes[n % 4], generator=generator) for n in range(count)]
    )


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
