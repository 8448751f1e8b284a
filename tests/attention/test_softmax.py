"""Key views: how they are chosen, and that scenes of a batch each keep their own."""

from __future__ import annotations

import pytest
import torch

from tests.attention.references import farthest, reference
from tests.attention.variants import attend, build, describe, draw_case, relative, survey
from vggt3.attention.registry import LayerSpec
from vggt3.attention.softmax import farthest_views


def draw_descriptors(batch: int, views: int) -> torch.Tensor:
    drawn = torch.randn(batch, views, 8, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_the_farthest_are_chosen(count: int) -> None:
    descriptors = draw_descriptors(3, 9)
    found = farthest_views(descriptors, count)
    assert found.dtype == torch.bool and found[:, 0].all()
    for b in range(3):
        assert found[b].nonzero().flatten().tolist() == sorted(farthest(descriptors[b], count))


def test_the_choice_does_not_depend_on_the_order() -> None:
    descriptors = draw_descriptors(2, 9)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(8)])
    expected = farthest_views(descriptors, 4)[:, order]
    assert torch.equal(farthest_views(descriptors[:, order], 4), expected)


def test_equal_views_are_not_chosen_twice() -> None:
    assert farthest_views(torch.ones(1, 4, 3), 3).sum() == 3


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_scenes_of_a_batch_keep_their_own(weighted: bool) -> None:
    """The list holds what any scene wants; a scene does not see what another one wanted."""
    spec = LayerSpec("softmax", (("max_views", 2),))
    backend, case = build(spec), draw_case(6, batch=4)
    weight = torch.rand(case.tokens.shape[:3], dtype=torch.float64) + 0.1
    case = survey(backend, case.weighted(weight if weighted else None))
    assert case.context.plan is not None
    assert len(case.context.plan["key_views"].unique(dim=0)) > 1
    expected = reference(spec, backend, case, describe(case))
    assert relative(attend(backend, case), expected) < 1e-11
