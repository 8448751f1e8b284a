"""Rotary positions: only differences of places matter, rows and columns turn apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.attention.variants import relative
from vggt3.attention.rope import Rope

GRID, SPECIAL, WIDTH = (5, 7), 3, 16


@pytest.fixture
def rope() -> Rope:
    return Rope.of_grid(GRID, SPECIAL, WIDTH, torch.device("cpu"), torch.float64)


def at(row: int, column: int) -> int:
    """The token of a patch."""
    return SPECIAL + row * GRID[1] + column


def everywhere(vector: Tensor, rope: Rope) -> Tensor:
    """The vector as each of a view's tokens would carry it: [P, D]."""
    return rope.turn(vector.expand(rope.cos.shape[0], -1))


def test_the_product_depends_on_the_offset_alone(rope: Rope) -> None:
    q, k = torch.randn(2, WIDTH, dtype=torch.float64)
    products = everywhere(q, rope) @ everywhere(k, rope).T  # [P, P]
    for row, column in ((0, 0), (1, 3), (-2, 2), (4, -6)):
        seen = [
            products[at(r, c), at(r + row, c + column)]
            for r in range(GRID[0])
            for c in range(GRID[1])
            if 0 <= r + row < GRID[0] and 0 <= c + column < GRID[1]
        ]
        assert float(torch.stack(seen).std(correction=0)) < 1e-12
    assert float((products[at(1, 1), at(1, 2)] - products[at(1, 1), at(2, 1)]).abs()) > 1e-3


def test_length_is_kept(rope: Rope) -> None:
    x = torch.randn(2, 3, rope.cos.shape[0], WIDTH, dtype=torch.float64)
    assert relative(rope.turn(x).norm(dim=-1), x.norm(dim=-1)) < 1e-12


def test_rows_turn_the_first_half_and_columns_the_second(rope: Rope) -> None:
    turned = everywhere(torch.randn(WIDTH, dtype=torch.float64), rope)
    first, second = turned[:, : WIDTH // 2], turned[:, WIDTH // 2 :]
    assert torch.equal(first[at(2, 1)], first[at(2, 6)])
    assert torch.equal(second[at(0, 3)], second[at(4, 3)])
    assert not torch.equal(first[at(1, 1)], first[at(2, 1)])
    assert not torch.equal(second[at(1, 1)], second[at(1, 2)])


def test_camera_and_register_tokens_stand_still(rope: Rope) -> None:
    x = torch.randn(rope.cos.shape[0], WIDTH, dtype=torch.float64)
    turned = rope.turn(x)
    assert torch.equal(turned[:SPECIAL], x[:SPECIAL])
    assert all(not torch.equal(turned[n], x[n]) for n in range(SPECIAL, len(x)))


def test_the_first_patch_is_at_one_one(rope: Rope) -> None:
    """By hand: pairs (i, i + d/4) of a half turn by 100^(-2i/(d/2)) a step."""
    quarter = WIDTH // 4
    for i in range(quarter):
        angle = torch.tensor(100.0 ** (-2 * i / (WIDTH / 2)), dtype=torch.float64)
        x = torch.zeros(WIDTH, dtype=torch.float64)
        x[i] = 1.0
        turned = everywhere(x, rope)[at(0, 0)]
        assert float((turned[i] - angle.cos()).abs()) < 1e-12
        assert float((turned[i + quarter] - angle.sin()).abs()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype, rope: Rope) -> None:
    assert rope.turn(torch.randn(rope.cos.shape[0], WIDTH).to(dtype)).dtype == dtype


def test_no_views() -> None:
    rope = Rope.of_grid((1, 1), 0, 4, torch.device("cpu"))
    assert rope.turn(torch.zeros(2, 0, 1, 4)).shape == (2, 0, 1, 4)
