"""``vggt3 attention``: what it lists, as tables and as JSON."""

from __future__ import annotations

import json

import pytest

from vggt3 import cli
from vggt3.attention.kernels import fast_weights
from vggt3.attention.kernels.softmax import KERNELS, ORDER
from vggt3.attention.registry import table


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attention"]) == 0
    text = capsys.readouterr().out
    for name in (*table(), *KERNELS):
        assert name in text
    assert "ttt_shortconv: ttt_mlp with a depthwise 3×3 convolution on v (the default)" in text
    assert "--attention.sweeps auto" in text and "times every view is written" in text
    assert f"first of {', '.join(ORDER)} that" in text
    assert "kernels of ttt_mlp, ttt_shortconv on" in text and "triton" in text
    assert not [line for line in text.splitlines() if len(line) > 80]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attention", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    backends = {backend["name"]: backend for backend in told["backends"]}
    assert set(backends) == set(table())
    # FACTS section 2's sizes: 1041 tokens of 1024 channels; 2 for a multiply-add.
    token = 8 * 1024**2 + 4 * 100 * 1041 * 1024
    assert backends["softmax"]["costs"][0] == {
        "views": 100,
        "flops": 100 * 1041 * token,
        "state_bytes": 100 * 1041 * 1024 * 2 * 2,
    }
    assert not backends["softmax"]["linear"] and backends["ttt_shortconv"]["linear"]
    assert backends["ttt_mlp"]["options"][0]["name"] == "sweeps"
    kernels = told["kernels"]
    assert set(kernels["why_not"]) == set(KERNELS)
    assert kernels["why_not"]["math"] is None
    assert kernels["why_not"][kernels["auto"]["kernel"]] is None
    assert kernels["why_not_weighted"][kernels["auto_weighted"]["kernel"]] is None
    memories = told["fast_weight_kernels"]
    assert set(memories["why_not"]) == set(fast_weights.NAMES)
    assert memories["why_not"]["torch"] is None
    assert memories["why_not"][memories["auto"]["kernel"]] is None
