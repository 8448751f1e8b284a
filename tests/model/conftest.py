"""The reference outputs (shared/golden) and the models that must reproduce them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vggt3.model import names
from vggt3.model.config import VGGT_1B
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

LIKE = replace(VGGT_1B, preset="golden", camera_heads=4)


@dataclass(frozen=True)
class Golden:
    folder: Path

    def file(self, name: str) -> dict[str, Tensor]:
        """One file's tensors; the compact copy in tests/golden has only some of them."""
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"{path.name} is not in {self.folder}")
        return load_file(path)

    def weights(self, which: str) -> dict[str, Tensor]:
        """A checkpoint under our names; the compact copy keeps one backbone, two adapters."""
        adapter = self.folder / f"{which}.adapter.safetensors"
        if not adapter.is_file():
            return names.from_public(self.file(f"{which}.weights"))
        backbone = names.from_public(self.file("vggt.weights"))
        kept = {k: t for k, t in backbone.items() if not names.is_adapter(k)}
        return kept | names.from_public(load_file(adapter))

    def images(self) -> Tensor:
        """[1, 5, 3, H, W]: views 0..2 are the scene, the rest queries."""
        return self.file("images")["images"].unsqueeze(0)

    def scene(self) -> Views:
        return Views.from_tensor(self.images()[:, :3])

    def model(self, which: str, **options: object) -> VGGT3:
        """``vggt`` (softmax) or ``vggt_ttt``, fp32, evaluation mode."""
        tensors = self.weights(which)
        config = names.infer_config(tensors, LIKE)
        model = VGGT3.build(config, names.dialect(tensors), **options)
        model.load_state_dict({k: t.float() for k, t in tensors.items()}, strict=True)
        return model.eval()


@pytest.fixture(scope="session")
def golden(golden_dir: Path) -> Golden:
    return Golden(golden_dir)


def distance(found: Tensor, expected: Tensor) -> float:
    """max |difference| / max |value|, and the shapes must agree."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert torch.isfinite(found).all()
    return float((found - expected).abs().max() / expected.abs().max())
