"""From names and options to a model: which files are meant, and what may be overridden."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.model.weight_cases import choose, copy_of, same, write_tiny
from vggt3 import checks
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import adapters_of, find_backbone, open_model, start_model
from vggt3.model.weight_files import read_header
from vggt3.model.weights import fingerprint
from vggt3.model.weights_saving import save_adapter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone with three adapters. Read only."""
    return write_tiny(tmp_path_factory.mktemp("weights"))


def test_names_of_adapters(folder: Path) -> None:
    backbone = folder / "tiny.safetensors"
    known = adapters_of(backbone, read_header(backbone))
    assert sorted(known) == ["linear", "softmax", "ttt_shortconv"]
    assert find_backbone(str(backbone)) == find_backbone(str(folder)) == backbone
    with pytest.raises(checks.UsageError, match=r"softmax, .*mean 'softmax'"):
        choose(folder, adapter="sofmax")
    with pytest.raises(checks.UsageError, match=r"has linear, .* --attention ttt_mlp makes one"):
        choose(folder, attention="ttt_mlp")
    with pytest.raises(checks.DataError, match="no such file"):
        open_model(ModelChoice(weights="nowhere/x.safetensors"))
    with pytest.raises(checks.UsageError, match="--weights must"):
        open_model(ModelChoice(weights="smalll"))


def test_a_folder_with_two_backbones(folder: Path, tmp_path: Path) -> None:
    copy_of(folder, tmp_path)
    shutil.copy(tmp_path / "tiny.safetensors", tmp_path / "more.safetensors")
    with pytest.raises(checks.DataError, match=r"one backbone .*more.safetensors, tiny"):
        find_backbone(str(tmp_path))


def test_nothing_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vggt3.model.opening.SHIPPED", tmp_path)
    monkeypatch.setattr("vggt3.model.opening.shipped_backbones.__defaults__", (tmp_path,))
    with pytest.raises(checks.UsageError, match=r"ships no 'small', got none \(it ships: nothing"):
        open_model(ModelChoice())


def test_what_attention_and_adapter_mean(folder: Path) -> None:
    assert choose(folder).model.specs[0].name == "ttt_shortconv"
    assert choose(folder, attention="linear").model.specs[0].name == "linear"
    assert choose(folder, adapter="softmax").model.specs[0].name == "softmax"
    with pytest.raises(checks.UsageError, match="must hold linear in layer 0, got softmax"):
        choose(folder, adapter="softmax", attention="linear")
    opened = choose(folder)
    assert opened.trained and "tiny.ttt_shortconv.safetensors" in opened.description
    with pytest.raises(checks.UsageError, match="--preset must stand alone"):
        ModelChoice(weights="x", preset="tiny")
    drawn = open_model(ModelChoice(preset="tiny", attention="softmax"))
    assert not drawn.trained and "random weights" in drawn.description


def test_without_the_default_backend_softmax_is_used(folder: Path, tmp_path: Path) -> None:
    copy_of(folder, tmp_path)
    (tmp_path / "tiny.ttt_shortconv.safetensors").unlink()
    assert choose(tmp_path).model.specs[0].name == "softmax"
    assert start_model(ModelChoice(weights=str(tmp_path))).model.specs[0].name == "ttt_shortconv"
    with pytest.raises(checks.UsageError, match="has linear, softmax; vggt3 fit"):
        choose(tmp_path, attention="ttt_shortconv")


def test_options_at_inference(folder: Path) -> None:
    model = choose(folder, attention_options={"sweeps": 3}).model
    assert dict(model.specs[0].options) == {"hidden": 2, "sweeps": 3}
    assert model.aggregator.block(0).attn.sweeps == 3
    assert choose(folder, attention_options={"hidden": 2}).model.specs[0].options
    soft = choose(folder, adapter="softmax", attention_options={"max_views": 5})
    assert dict(soft.model.specs[0].options) == {"max_views": 5}
    for option, value in (("hidden", 4), ("kernel_size", 5), ("seed", 1)):
        with pytest.raises(checks.UsageError, match=f"attention.{option} must be what tiny.ttt"):
            choose(folder, attention_options={option: value})
    with pytest.raises(checks.UsageError, match="did you mean 'sweeps'"):
        choose(folder, attention_options={"sweps": 2})
    with pytest.raises(checks.UsageError, match="option of softmax must be one of"):
        choose(folder, adapter="softmax", attention_options={"sweeps": 2})


def test_a_schedule_takes_each_layer_from_its_adapter(folder: Path, tmp_path: Path) -> None:
    options = {"schedule": "0-1:softmax,2-3:ttt_shortconv", "sweeps": 2}
    mixed = choose(folder, attention_options=options)
    soft, fast = choose(folder, attention="softmax"), choose(folder, attention="ttt_shortconv")
    state = mixed.model.state_dict()
    for layer, source in enumerate((soft, soft, fast, fast)):
        prefix = f"aggregator.global_blocks.{layer}.attn."
        expected = {k: t for k, t in source.model.state_dict().items() if k.startswith(prefix)}
        assert expected and all(torch.equal(state[k], t) for k, t in expected.items())
    assert "0-1 softmax, 2-3 ttt_shortconv" in mixed.description
    named = choose(folder, adapter="softmax,ttt_shortconv", attention_options=options)
    assert same(named.model, mixed.model)
    with pytest.raises(checks.UsageError, match="must hold ttt_shortconv in layer 2, got softmax"):
        choose(folder, adapter="softmax", attention_options=options)
    # As one adapter of its own, a backend a layer.
    whole = copy_of(folder, tmp_path) / "tiny.half.safetensors"
    save_adapter(whole, mixed.model, dtype=None)
    again = choose(tmp_path, adapter="half")
    assert same(again.model, mixed.model) and again.model.specs == mixed.model.specs


def test_a_fit_starts_from_softmax(folder: Path) -> None:
    weights = str(folder)
    softmax = choose(folder, attention="softmax").model
    begun = start_model(ModelChoice(weights=weights, attention="ttt_mlp")).model
    for name in ("qkv.weight", "proj.bias"):
        key = f"aggregator.global_blocks.1.attn.{name}"
        assert torch.equal(begun.state_dict()[key], softmax.state_dict()[key])
    assert fingerprint(begun.state_dict()) == fingerprint(softmax.state_dict())
    assert same(start_model(ModelChoice(weights=weights, attention="softmax")).model, softmax)
    options = {"schedule": "0:softmax,1-3:linear"}
    half = start_model(ModelChoice(weights=weights, attention_options=options)).model
    norm = "aggregator.global_blocks.0.attn.q_norm.weight"
    assert torch.equal(half.state_dict()[norm], softmax.state_dict()[norm])
    on = start_model(ModelChoice(weights=weights, adapter="ttt_shortconv")).model
    assert same(on, choose(folder, attention="ttt_shortconv").model)


def test_a_fit_starts_from_scratch(folder: Path) -> None:
    """Random attention, drawn from the seed, on the same frozen rest; softmax's too."""
    softmax = choose(folder, attention="softmax").model.state_dict()
    prefix = "aggregator.global_blocks.1.attn."
    for name in ("softmax", "ttt_shortconv"):
        first, again, other = (
            start_model(
                ModelChoice(weights=str(folder), attention=name, seed=seed), scratch=True
            ).model
            for seed in (3, 3, 4)
        )
        own, theirs = first.state_dict(), other.state_dict()
        assert same(first, again) and fingerprint(own) == fingerprint(softmax)
        for tensor in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias"):
            key = prefix + tensor
            assert not torch.equal(own[key], softmax[key]), key
            assert not torch.equal(own[key], theirs[key]), key
    with pytest.raises(checks.UsageError, match="--start scratch must stand without --adapter"):
        start_model(ModelChoice(weights=str(folder), adapter="linear"), scratch=True)
