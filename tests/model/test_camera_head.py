"""Poses of the views that are asked for are those of all views."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vggt3.model.camera_head import CameraHead
from vggt3.model.config import TINY

GPU = torch.cuda.is_available()
PLACES = [
    (torch.device("cpu"), torch.float64, 1e-12),
    (torch.device("cpu"), torch.bfloat16, 1e-2),
    *([(torch.device(torch.cuda.current_device()), torch.bfloat16, 1e-2)] if GPU else []),
]


def head(device: torch.device, dtype: torch.dtype) -> CameraHead:
    """One in which no branch is near zero; products in bf16 where tokens are."""
    torch.manual_seed(0)
    made = CameraHead(TINY)
    for name, parameter in made.named_parameters():
        if "gamma" in name:
            torch.nn.init.uniform_(parameter, 0.3, 1.0)
    return made.to(device, torch.promote_types(dtype, torch.float32)).eval()


@torch.no_grad()
@pytest.mark.parametrize(("device", "dtype", "most"), PLACES, ids=str)
@pytest.mark.parametrize("asked", [slice(-1, None), slice(4, None), slice(0, 2)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_the_views_asked_for(
    device: torch.device, dtype: torch.dtype, most: float, asked: slice, masked: bool
) -> None:
    model = head(device, dtype)
    tokens = torch.randn(3, 6, 2 * TINY.width).to(device, dtype)
    mask: Tensor | None = None
    if masked:
        place = torch.arange(6, device=device)
        mask = (place < 4) | (place == place[:, None])
    found, wanted = model(tokens, mask, asked=asked), model(tokens, mask)
    assert len(found) == len(wanted) == TINY.camera_iterations
    for one, other in zip(found[:-1], wanted[:-1], strict=True):
        assert torch.equal(one, other)
    last = wanted[-1][:, asked]
    assert found[-1].shape == last.shape
    assert float((found[-1] - last).norm() / last.norm()) < most
    # Far more than rounding lies between one view and the next.
    assert float((wanted[-1][:, 0] - wanted[-1][:, 5]).norm() / last.norm()) > 2 * most


def test_only_they_are_worked_out() -> None:
    """The last block's MLP and what follows see the asked rows alone, once."""
    model = head(torch.device("cpu"), torch.float32)
    rows: list[int] = []
    for part in (model.trunk[-1].mlp, model.trunk_norm, model.branch):
        part.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[1]))
    model(torch.randn(1, 6, 2 * TINY.width), asked=slice(-1, None))
    assert rows == [6] * 3 * (TINY.camera_iterations - 1) + [1] * 3
