"""States and deltas: what they are told of themselves, and which additions are refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vggt3.attention.memory import Delta, State


def test_a_state_knows_its_bytes() -> None:
    state = State({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)})
    assert state.nbytes == 24 + 8
    assert State().nbytes == 0
    assert State({"a": torch.zeros(1, 3).expand(5, 3)}).nbytes == 60


def test_an_update_leaves_the_state_as_it_was() -> None:
    state = State({"a": torch.zeros(2)}, {"sweep": 0, "views": 7}, bounded=False)
    later = state.updated({"b": torch.ones(1)}, sweep=1)
    assert set(later.tensors) == {"a", "b"} and later.numbers == {"sweep": 1, "views": 7}
    assert not later.bounded
    assert set(state.tensors) == {"a"} and state.numbers == {"sweep": 0, "views": 7}
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.bounded = True  # type: ignore[misc]


def test_a_state_is_mapped_and_moved() -> None:
    state = State({"a": torch.ones(2)}, {"views": 3})
    assert state.map(lambda t: 2 * t)["a"].tolist() == [2, 2]
    assert state.to("meta")["a"].is_meta and state.to("meta").numbers == {"views": 3}


def test_deltas_of_different_names_do_not_add() -> None:
    with pytest.raises(ValueError, match=r"the same names to add, got \['a', 'k'\] and \['b'\]"):
        Delta({"a": torch.ones(1)}, {"k": torch.ones(1, 1)}) + Delta({"b": torch.ones(1)})
    with pytest.raises(ValueError, match="same names"):
        Delta.total([Delta({"a": torch.ones(1)}), Delta({"b": torch.ones(1)})])
    with pytest.raises(ValueError, match="same names"):
        Delta.total([Delta(lists={"a": torch.ones(1, 1)}), Delta(lists={"b": torch.ones(1, 1)})])


def test_the_total_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one, got none"):
        Delta.total([])


def test_a_total_is_the_sum_in_order() -> None:
    deltas = [
        Delta({"a": torch.full((2,), float(n))}, {"k": torch.full((1, n, 2), float(n))})
        for n in range(4)
    ]
    total = Delta.total(deltas)
    assert total.sums["a"].tolist() == [6, 6]
    assert total.lists["k"][0, :, 0].tolist() == [1, 2, 2, 3, 3, 3]
    added = deltas[0] + deltas[1] + deltas[2] + deltas[3]
    assert torch.equal(added.lists["k"], total.lists["k"])
    assert deltas[0].sums["a"].tolist() == [0, 0]
