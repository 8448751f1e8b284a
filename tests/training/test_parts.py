"""Weights in small files: they come back as bf16 of what they were, or say why not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vggt3.checks import DataError
from vggt3.model import quantisation, weight_files, weights_saving
from vggt3.model.choice import ModelChoice
from vggt3.model.config import SMALL, TINY
from vggt3.model.names import is_adapter
from vggt3.model.opening import open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.training import freezing, parts
from vggt3.training.parts import load_encoder, load_parts, publish, save_parts
from vggt3.types import Views

HEADER = {"backends": json.dumps([["ttt_shortconv", {}]] * TINY.layers)}


def model_of(encoder: Path) -> VGGT3:
    made = VGGT3.build(TINY, "softmax")
    load_encoder(made, encoder)
    return made


def tiny(backend: str = "softmax") -> VGGT3:
    """A model of random weights on the one encoder."""
    made = VGGT3.build(TINY, backend)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in made.encoder.parameters():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    freezing.freeze(made, "all")
    return made


def test_they_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PIECE", 1 << 20)
    model, other = tiny(), tiny()
    written = save_parts(model, tmp_path, {"step": "7"})
    assert len(written) > 2 and all(file.stat().st_size < 1.2 * (1 << 20) for file in written)
    load_parts(other, tmp_path)
    found = other.state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith("encoder."):
            assert torch.equal(tensor.bfloat16().float(), found[name]), name


def test_fewer_pieces_leave_no_stale_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    monkeypatch.setattr(parts, "PIECE", 1 << 20)
    save_parts(model, tmp_path, {})
    monkeypatch.undo()
    save_parts(model, tmp_path, {})
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "adapter.safetensors",
        "trunk-1.safetensors",
    ]
    load_parts(model, tmp_path)


def test_an_encoder_that_has_learned_comes_along(tmp_path: Path) -> None:
    model, other = tiny(), tiny()
    freezing.freeze(model, "encoder")
    save_parts(model, tmp_path, {})
    load_parts(other, tmp_path)
    own = {n: t for n, t in model.named_parameters() if n.startswith("encoder.")}
    stored = quantisation.unpack(quantisation.pack(own))
    for name, tensor in other.named_parameters():
        if name in own:
            assert torch.equal(tensor, stored[name].float()), name
    freezing.freeze(model, "all")
    save_parts(model, tmp_path, {})
    assert not list(tmp_path.glob("encoder-*")), "the next to start must not take an older one"


def test_a_learned_encoder_is_published_with_its_backbone(tmp_path: Path) -> None:
    """Its file is written anew, once; an adapter on it finds it there."""
    (tmp_path / "parts").mkdir()
    encoder, model = tmp_path / "e.safetensors", tiny()

    def publish_trained(backend: str) -> bytes:
        made = tiny(backend)
        load_encoder(made, encoder)
        load_parts(made, tmp_path / "parts")
        publish(made, encoder, "m", {"seconds": "1"})
        return encoder.read_bytes()

    own = {n: t for n, t in model.state_dict().items() if n.startswith("encoder.")}
    weights_saving.save_encoder(encoder, own, TINY.encoder, {"source": "a package"})
    load_encoder(model, encoder)
    save_parts(model, tmp_path / "parts", {})
    before = encoder.read_bytes()
    assert publish_trained("softmax") == before, "it has not learned"
    freezing.freeze(model, "encoder")
    with torch.no_grad():
        model.encoder.patch.weight += 0.1
    save_parts(model, tmp_path / "parts", {})
    after = publish_trained("softmax")
    assert after != before and publish_trained("softmax") == after
    told = {"source": "a package", "seconds": "1"}
    assert weight_files.read_header(encoder).record == told, "whose it was"
    publish_trained("ttt_shortconv")
    choice = ModelChoice(str(tmp_path / "m.safetensors"), attention="softmax")
    found = open_model(choice).model.encoder.patch.weight
    assert (found - model.encoder.patch.weight).abs().max() < 2e-3
    weights_saving.save_backbone(tmp_path / "n.safetensors", model_of(encoder), encoder=encoder)
    with torch.no_grad():
        model.encoder.patch.weight += 0.1
    save_parts(model, tmp_path / "parts", {})
    with pytest.raises(DataError, match=r"part of m\.safetensors alone.*got n\.safetensors"):
        publish_trained("softmax")


def test_a_trunk_is_not_put_onto_another_encoder(tmp_path: Path) -> None:
    """A leg that freezes what an earlier one has moved writes no encoder: the next must have it."""
    model, other = tiny(), tiny()
    freezing.freeze(model, "encoder")
    with torch.no_grad():
        model.encoder.patch.weight += 0.1
    save_parts(model, tmp_path / "first", {})
    load_parts(other, tmp_path / "first")
    freezing.freeze(other, "all")
    save_parts(other, tmp_path / "then", {})
    load_parts(other, tmp_path / "then")
    with pytest.raises(DataError, match="then must stand on the model's encoder, or bring its own"):
        load_parts(tiny(), tmp_path / "then")


def test_parts_of_two_times_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up between two files leaves each of them whole."""
    monkeypatch.setattr(parts, "PIECE", 1 << 20)
    model = tiny()
    last = save_parts(model, tmp_path / "first", {})[-1]
    save_parts(model, tmp_path / "then", {})
    last.replace(tmp_path / "then" / last.name)
    with pytest.raises(DataError, match=f"{last.name} must be written together with the other"):
        load_parts(model, tmp_path / "then")


def test_another_backend_begins_from_softmax(tmp_path: Path) -> None:
    model, other = tiny(), tiny("ttt_shortconv")
    save_parts(model, tmp_path, {})
    load_parts(other, tmp_path)
    key = "aggregator.global_blocks.2.attn.qkv.weight"
    assert torch.equal(other.state_dict()[key], model.state_dict()[key].bfloat16().float())
    buffer = "aggregator.global_blocks.2.attn.w0"
    fresh = tiny("ttt_shortconv").state_dict()[buffer]
    assert torch.equal(other.state_dict()[buffer], fresh), "a fixed start is never rounded"
    save_parts(other, tmp_path, {})
    with pytest.raises(DataError, match="adapter of linear, or of softmax"):
        load_parts(tiny("linear"), tmp_path)
    load_parts(tiny("ttt_shortconv"), tmp_path)


def test_fast_weights_that_learn_begin_where_fixed_ones_are(tmp_path: Path) -> None:
    (tmp_path / "fixed").mkdir()
    fixed = VGGT3.build(TINY, "ttt_shortconv")
    save_parts(fixed, tmp_path / "fixed", {})
    learned = VGGT3.build(TINY, "ttt_shortconv", initial="learned", sweeps=2)
    parts.load_adapter(learned, tmp_path / "fixed" / "adapter.safetensors")
    for name, tensor in fixed.state_dict().items():
        if is_adapter(name):
            assert torch.equal(tensor.bfloat16(), learned.state_dict()[name].bfloat16()), name
    starts = [n for n, _ in learned.named_parameters() if n.endswith((".w0", ".w1", ".w2"))]
    with torch.no_grad():
        for name in starts:
            learned.get_parameter(name).mul_(1.5)
    save_parts(learned, tmp_path, {})
    with safe_open(tmp_path / "adapter.safetensors", "pt") as opened:
        assert len(starts) == 3 * TINY.layers and set(starts) <= set(opened.keys())
    assert parts.options_for(tmp_path / "adapter.safetensors") == {
        "initial": "learned",
        "sweeps": 2,
    }
    with pytest.raises(DataError, match=f"difference in {len(starts)}, such as .*attn.w0"):
        parts.load_adapter(fixed, tmp_path / "adapter.safetensors")
    kept = load_file(tmp_path / "adapter.safetensors")
    save_file({n: t for n, t in kept.items() if n != starts[1]}, tmp_path / "x.safetensors", HEADER)
    with pytest.raises(DataError, match=f"difference in 1, such as {re.escape(starts[1])}"):
        parts.load_adapter(learned, tmp_path / "x.safetensors")


@pytest.mark.parametrize("options", [{"gate": True}, {"convolved": "qkv"}, {"initial": "learned"}])
def test_a_part_that_comes_later_changes_nothing_yet(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    before = tiny("ttt_shortconv")
    save_parts(before, tmp_path, {})
    load_parts(before, tmp_path)
    after = VGGT3.build(TINY, "ttt_shortconv", **options)
    drawn = after.state_dict()
    after.load_state_dict(before.state_dict(), strict=False)
    parts.load_adapter(after, tmp_path / "adapter.safetensors")
    new = {name for name, _ in after.named_parameters()} - {n for n, _ in before.named_parameters()}
    assert new and all(torch.equal(after.state_dict()[name], drawn[name]) for name in new)
    views = Views.from_tensor(torch.rand(1, 3, 3, 28, 42))
    with torch.no_grad():
        found, wanted = (model.eval().read(views).camera_tokens for model in (after, before))
    assert torch.allclose(found, wanted, atol=1e-5), options
    wider = VGGT3.build(TINY, "ttt_shortconv", kernel_size=5)
    with pytest.raises(DataError, match="have shape"):
        parts.load_adapter(wider, tmp_path / "adapter.safetensors")
    with pytest.raises(DataError, match="difference in"):  # a convolution of v is no identity
        save_parts(VGGT3.build(TINY, "ttt_shortconv", convolved="q"), tmp_path, {})
        parts.load_adapter(before, tmp_path / "adapter.safetensors")


def test_what_cannot_be_started_from_is_named(tmp_path: Path) -> None:
    model = tiny()
    with pytest.raises(DataError, match="no folder"):
        load_parts(model, tmp_path / "nowhere")
    save_parts(model, tmp_path, {})
    (tmp_path / "trunk-1.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match="safetensors file"):
        load_parts(model, tmp_path)


def test_every_file_of_the_small_preset_is_below_16_mib() -> None:
    with torch.device("meta"):
        model = VGGT3.build(SMALL, "ttt_shortconv")
    size: dict[bool, int] = {True: 0, False: 0}
    for name, tensor in model.named_parameters():
        if not name.startswith("encoder."):
            size[is_adapter(name)] += 2 * tensor.numel()
    assert size[True] < parts.PIECE
    assert size[False] < 4 * parts.PIECE
