"""A scene that costs nothing to make, and a trainer that keeps quiet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from tests.training.fits import painted
from vggt3.data.procedural.scene import SceneBatch
from vggt3.geometry.camera import look_at, normalise_to_first, pinhole
from vggt3.training.rendering import Renderer


def smooth_scene(views: int = 3, size: tuple[int, int] = (28, 42)) -> SceneBatch:
    """Cameras around a point, smooth depth, and a coloured pattern."""
    height, width = size
    centre = torch.tensor([[0.3 * n, 0.1 * n, -0.1 * n] for n in range(views)])[None]
    target = torch.tensor([0.0, 0.0, 3.0]).expand_as(centre)
    up = torch.tensor([0.0, -1.0, 0.0]).expand_as(centre)
    focal = torch.full((1, views), 40.0)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = torch.arange(views)[:, None, None]
    depth = 2 + 0.3 * torch.sin(x / 9 + phase) + 0.2 * torch.cos(y / 7)
    channels = [torch.sin(x / (3 + c) + y / 5 + phase) for c in range(3)]
    valid = depth > 0
    valid[:, :3, :5] = False
    return SceneBatch(
        images=(0.5 + 0.5 * torch.stack(channels, dim=1))[None],
        depth=torch.where(valid, depth, 0.0)[None],
        valid=valid[None],
        camera_from_world=normalise_to_first(look_at(centre, target, up)),
        intrinsics=pinhole(focal, focal, size),
    )


class OneScene(LightningDataModule):
    """The same batch again and again."""

    def __init__(self, batch: SceneBatch) -> None:
        super().__init__()
        self.batch = batch

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.batch] * 1000, batch_size=None)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: SceneBatch, device: torch.device, dataloader_idx: int
    ) -> SceneBatch:
        return batch


def quiet_trainer(steps: int, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.fixture
def scene() -> SceneBatch:
    return smooth_scene()


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes without a renderer."""
    monkeypatch.setattr(Renderer, "__call__", painted)
