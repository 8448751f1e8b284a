"""The dense heads' upsampling: torch's values, and torch's gradient by other means."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from vggt3.model.maps import line_weights, upsample

Size = tuple[int, int]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((6, 7), (12, 14)),
        ((1, 5), (3, 9)),
        ((96, 54), (168, 98)),
        ((4, 4), (4, 4)),
        ((5, 3), (1, 1)),
        ((8, 8), (3, 5)),
    ],
)
def test_values_and_gradient_are_torchs(source: Size, target: Size) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *source, dtype=torch.float64, requires_grad=True)
    wanted = interpolate(x, size=target, mode="bilinear", align_corners=True)
    found = upsample(x, target)
    assert torch.equal(found, wanted)
    given = torch.randn_like(wanted)
    (ours,) = torch.autograd.grad(found, x, given)
    (theirs,) = torch.autograd.grad(wanted, x, given)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_gradient_keeps_a_gpus_memory_format() -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    out = upsample(x, (8, 10))
    (found,) = torch.autograd.grad(out, x, torch.ones_like(out))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_weights_of_a_line_are_exact() -> None:
    weights = line_weights(97, 169, torch.zeros((), dtype=torch.float32))
    assert torch.equal(weights[::7].argmax(1), torch.arange(0, 97, 4))
    assert float((weights.double().sum(1) - 1).abs().max()) < 1e-7
    assert int((weights > 0).sum(1).max()) == 2
