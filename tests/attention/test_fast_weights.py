"""The fast-weight equations: what Newton–Schulz, the column norms and the gradient must satisfy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.attention.references import towards_orthogonal
from tests.attention.variants import HEADS, WIDTH, attend, draw_case, label, relative
from vggt3.attention import fast_weights
from vggt3.attention.fast_weights import Weights
from vggt3.attention.kernels.rows import unit
from vggt3.attention.registry import LayerSpec
from vggt3.attention.ttt_mlp import draw_start
from vggt3.attention.ttt_shortconv import CONVOLVED

SHAPES = [(8, 8), (8, 32), (32, 8), (1, 5), (5, 1)]


def with_singular_values(rows: int, columns: int, values: Tensor) -> Tensor:
    left = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(columns, columns, dtype=torch.float64))[0]
    rank = min(rows, columns)
    return left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_newton_schulz_brings_singular_values_near_one(rows: int, columns: int) -> None:
    """From a spread of a hundred to one, five steps end between 0.65 and 1.25."""
    values = torch.logspace(0, -2, min(rows, columns), dtype=torch.float64)
    given = with_singular_values(rows, columns, values)
    found = torch.linalg.svdvals(fast_weights.newton_schulz(given, 5))
    assert float(found.min()) > 0.65 and float(found.max()) < 1.25


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_newton_schulz_keeps_singular_vectors(rows: int, columns: int, steps: int) -> None:
    given = torch.randn(2, 3, rows, columns, dtype=torch.float64)
    found = fast_weights.newton_schulz(given, steps)
    for b in range(2):
        for h in range(3):
            expected = towards_orthogonal(given[b, h], steps)
            assert relative(found[b, h], expected) < 1e-10


def test_newton_schulz_is_the_same_of_the_transpose_and_of_any_multiple() -> None:
    given = torch.randn(4, 6, 9, dtype=torch.float64)
    found = fast_weights.newton_schulz(given, 5)
    turned = fast_weights.newton_schulz(given.transpose(-1, -2), 5)
    assert relative(turned, found.transpose(-1, -2)) < 1e-12
    assert relative(fast_weights.newton_schulz(1000 * given, 5), found) < 1e-6
    assert relative(fast_weights.newton_schulz(-given, 5), -found) < 1e-12


def test_newton_schulz_of_nothing_is_nothing() -> None:
    assert not fast_weights.newton_schulz(torch.zeros(2, 4, 7), 5).any()


def draw_weights(heads: int = 2, width: int = 4, hidden: int = 6) -> Weights:
    drawn = draw_start(heads, width, hidden, torch.Generator().manual_seed(0))
    return Weights(*(w.double().unsqueeze(0) for w in drawn))


def test_an_update_keeps_column_norms() -> None:
    start = draw_weights()
    norms = Weights(*(fast_weights.column_norms(w) for w in start))
    gradients = Weights(*(torch.randn_like(w) for w in start))
    moved = fast_weights.update(start, gradients, norms, 5)
    for before, after in zip(start, moved, strict=True):
        assert relative(after, before) > 0.1
        # 1e-5 is added to the norm that is divided by.
        assert relative(fast_weights.column_norms(after), fast_weights.column_norms(before)) < 2e-5


def test_three_matrices_settle_as_each_alone() -> None:
    """The batch that an update makes of them changes neither it nor its gradient."""
    for width, hidden in ((4, 6), (4, 4), (6, 4)):
        weights = draw_weights(2, width, hidden)
        norms = Weights(*(fast_weights.column_norms(w) for w in weights))
        given = [torch.randn_like(w).requires_grad_() for w in weights]
        together = fast_weights.update(weights, Weights(*given), norms, 5)
        for index in range(3):
            turned = fast_weights.newton_schulz(given[index], 5)
            moved = weights[index] + turned
            alone = moved * (norms[index] / (moved.norm(dim=-2, keepdim=True) + 1e-5))
            assert relative(together[index], alone) < 1e-12
            pull = torch.randn_like(alone)
            (found,) = torch.autograd.grad(together[index], [given[index]], pull, retain_graph=True)
            (expected,) = torch.autograd.grad(alone, [given[index]], pull)
            assert relative(found, expected) < 1e-10


def test_each_matrix_has_its_own_rate() -> None:
    """The closed form is autograd's gradient of the objective weighted by that matrix's rates."""
    weights = draw_weights()
    k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(2))
    rates = torch.rand(1, 2, 5, 3, dtype=torch.float64)
    found = fast_weights.gradient(k, v, rates, weights)
    for index in range(3):
        leaves = [w.clone().requires_grad_() for w in weights]
        answers = (silu(k @ leaves[0]) * (k @ leaves[2])) @ leaves[1]
        objective = (rates[..., index] * (answers * v).sum(-1)).sum()
        (expected,) = torch.autograd.grad(objective, [leaves[index]])
        assert relative(found[index], expected) < 1e-12


def test_a_sweep_raises_the_objective() -> None:
    """What writing is for: after it, keys are answered more like their values."""
    weights, rates = draw_weights(1, 8, 32), torch.ones(1, 1, 24, 3, dtype=torch.float64)
    k, v = (unit(torch.randn(1, 1, 24, 8, dtype=torch.float64)) for _ in range(2))
    norms = Weights(*(fast_weights.column_norms(w) for w in weights))
    reached = [float((fast_weights.apply(k, weights) * v).sum())]
    for _ in range(3):
        gradients = fast_weights.gradient(k, v, rates, weights)
        weights = fast_weights.update(weights, gradients, norms, 5)
        reached.append(float((fast_weights.apply(k, weights) * v).sum()))
    assert reached[0] < reached[1] < reached[2]


def test_the_start_is_drawn_from_its_seed() -> None:
    first, again, other = (
        draw_start(3, 64, 256, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    for index, fan_in in enumerate((64, 256, 64)):
        assert torch.equal(first[index], again[index])
        assert not torch.equal(first[index], other[index])
        assert abs(float(first[index].std()) * (fan_in / 2) ** 0.5 - 1) < 0.02


@pytest.mark.parametrize(
    "spec",
    [
        LayerSpec("ttt_mlp", (("gate", True),)),
        LayerSpec("ttt_mlp", (("rates", "fixed"),)),
        *(LayerSpec("ttt_shortconv", (("convolved", names),)) for names in CONVOLVED),
    ],
    ids=label,
)
def test_what_is_added_begins_as_if_it_were_not_there(spec: LayerSpec) -> None:
    """So that what a row of an ablation adds is all that sets its training apart."""
    plain = LayerSpec("ttt_mlp").build(WIDTH, HEADS, 3).double().eval()
    other = spec.build(WIDTH, HEADS, 3).double().eval()
    other.load_state_dict(plain.state_dict(), strict=False)
    case = draw_case()
    assert relative(attend(other, case), attend(plain, case)) < 1e-7  # the bias is an fp32


def test_adapters_made_before_the_options_have_the_same_tensors() -> None:
    own = {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias", "w0", "w1", "w2"}
    own |= {"rates.weight", "rates.bias", "conv.weight"}
    assert LayerSpec("ttt_shortconv").build(WIDTH, HEADS, 0).state_dict().keys() == own


def test_unit() -> None:
    x = torch.randn(5, 7, dtype=torch.float64)
    assert relative(unit(x), x / (x.norm(dim=-1, keepdim=True) + 1e-5)) < 1e-12
    assert not unit(torch.zeros(2, 3)).any()
