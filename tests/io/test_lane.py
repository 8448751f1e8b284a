"""Calls beside the caller's: in order, bounded, and their errors come out."""

from __future__ import annotations

import threading

import pytest

from vggt3.io.lane import Lane


def test_calls_come_in_order_on_another_thread() -> None:
    lane, found, threads = Lane(2), [], set()

    def call(n: int) -> None:
        found.append(n)
        threads.add(threading.get_ident())

    for n in range(20):
        lane.put(call, n)
    lane.close()
    assert found == list(range(20)) and threading.get_ident() not in threads


def test_an_error_comes_out_and_ends_the_lane() -> None:
    lane, called = Lane(1), []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    lane.put(fail)
    with pytest.raises(OSError, match="No space left"):
        lane.put(called.append, 1)
        lane.put(called.append, 2)
        lane.close()
    lane.abandon()  # as a context that is left in spite of it does
    assert 2 not in called


def test_a_full_lane_waits() -> None:
    lane, gate, order = Lane(1), threading.Event(), []
    lane.put(gate.wait)
    threading.Timer(0.05, lambda: (order.append("opened"), gate.set())).start()
    lane.put(order.append, "second")
    order.append("put")
    lane.close()
    assert order[0] == "opened"
