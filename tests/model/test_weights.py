"""Backbone and adapter files: what is saved is what is loaded."""

from __future__ import annotations

import json
import resource
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.weight_cases import choose, copy_of, edit_header, same, write_tiny
from vggt3 import checks
from vggt3.model import names
from vggt3.model.config import SMALL, TINY
from vggt3.model.weight_files import Header, read_header, read_stored, write
from vggt3.model.weight_report import check_file
from vggt3.model.weights import fingerprint, load_model, random_model
from vggt3.model.weights_saving import save_adapter, save_backbone, save_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone with three adapters. Read only."""
    return write_tiny(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("attention", ["softmax", "linear", "ttt_mlp", "ttt_shortconv"])
def test_round_trip_is_exact(tmp_path: Path, attention: str) -> None:
    model = random_model(TINY, attention, {}, 5)
    backbone, adapter = tmp_path / "a.safetensors", tmp_path / "a.x.safetensors"
    mark = save_backbone(backbone, model, dtype=None)
    save_adapter(adapter, model, dtype=None)
    found = load_model(backbone, adapter)
    assert same(found, model)
    assert found.specs == model.specs and found.config == model.config
    assert not found.training and all(p.requires_grad for p in found.parameters())
    assert mark == fingerprint(found.state_dict()) == read_header(adapter).fingerprint


def test_stored_as_bf16_and_loaded_as_asked(tmp_path: Path) -> None:
    model = random_model(TINY, "ttt_shortconv", {}, 5)
    backbone, adapter = tmp_path / "a.safetensors", tmp_path / "a.x.safetensors"
    mark = save_backbone(backbone, model)
    save_adapter(adapter, model)
    assert {t.dtype for t in read_stored(backbone).values()} == {torch.bfloat16}
    assert mark == fingerprint(model.state_dict()), "bf16 storage must not change it"
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        found = load_model(backbone, adapter, dtype=dtype)
        assert {p.dtype for p in found.parameters()} == {dtype}
        assert {b.dtype for b in found.buffers()} == {torch.promote_types(dtype, torch.float32)}
        assert fingerprint(found.state_dict()) == mark
    weight = "aggregator.global_blocks.2.attn.qkv.weight"
    kept = load_model(backbone, adapter).state_dict()[weight]
    assert torch.equal(kept, model.state_dict()[weight].bfloat16().float())


def test_random_models_repeat_and_leave_the_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (random_model(TINY, "softmax", {}, seed) for seed in (3, 3, 4))
    assert same(a, b) and not same(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


def test_loading_leaves_the_random_numbers_alone(folder: Path) -> None:
    before = torch.random.get_rng_state()
    choose(folder, attention="ttt_shortconv", attention_options={"sweeps": 3})
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_start_from_a_seed_is_not_stored(tmp_path: Path) -> None:
    model = random_model(TINY, "ttt_mlp", {"seed": 7}, 0)
    backbone, adapter = tmp_path / "a.safetensors", tmp_path / "a.x.safetensors"
    mark = save_backbone(backbone, model)
    save_adapter(adapter, model, backbone=mark)
    assert not [k for k in read_stored(adapter) if k.endswith((".w0", ".w1", ".w2"))]
    found = load_model(backbone, adapter).aggregator.block(3).attn
    assert torch.equal(found.w1, model.aggregator.block(3).attn.w1)  # type: ignore[arg-type]

    drawn = model.aggregator.block(1).attn.w0
    assert isinstance(drawn, Tensor)
    drawn.add_(1)
    save_adapter(adapter, model, backbone=mark, dtype=None)
    stored = [k for k in read_stored(adapter) if k.endswith((".w0", ".w1", ".w2"))]
    assert {names.layer_of(k) for k in stored} == {1}
    assert same(load_model(backbone, adapter).aggregator, model.aggregator) is False  # bf16 trunk
    assert torch.equal(load_model(backbone, adapter).aggregator.block(1).attn.w0, drawn)  # type: ignore[arg-type]


def test_a_start_that_has_learned_is_stored(tmp_path: Path) -> None:
    model = random_model(TINY, "ttt_shortconv", {"initial": "learned", "hidden": 2}, 5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".w0", ".w1", ".w2")):
                parameter.mul_(1.5)
    backbone, adapter = tmp_path / "tiny.safetensors", tmp_path / "tiny.ttt_shortconv.safetensors"
    save_backbone(backbone, model, dtype=None)
    save_adapter(adapter, model, dtype=None)
    found = load_model(backbone, adapter)
    assert same(found, model) and found.specs == model.specs
    for option, value in (("initial", "fixed"), ("seed", 3), ("hidden", 4)):
        with pytest.raises(checks.UsageError, match=f"attention.{option} must be what tiny.ttt"):
            choose(tmp_path, attention_options={option: value})


def test_another_random_stream_is_noticed(folder: Path, tmp_path: Path) -> None:
    path = copy_of(folder, tmp_path) / "tiny.ttt_shortconv.safetensors"

    def other(data: dict[str, Any]) -> None:
        data["layers"][2]["start"][0] += 3 * data["layers"][2]["start"][1] ** 0.5

    edit_header(path, other)
    with pytest.raises(checks.DataError, match="draw the start of layer 2 whose sum"):
        load_model(tmp_path / "tiny.safetensors", path)


def test_the_header_is_readable_json(folder: Path) -> None:
    with (folder / "tiny.ttt_shortconv.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        data = json.loads(json.loads(file.read(length))["__metadata__"]["vggt3"])
    assert data["format"] == 1 and data["kind"] == "adapter"
    assert data["config"]["preset"] == "tiny" and data["config"]["encoder"]["width"] == 64
    assert data["layers"][0]["name"] == "ttt_shortconv"
    assert data["layers"][0]["options"] == {"hidden": 2}
    assert read_header(folder / "tiny.safetensors").record == {"steps": 3}


def test_an_adapter_of_another_backbone(folder: Path, tmp_path: Path) -> None:
    other = random_model(TINY, "softmax", {}, 2)
    adapter = tmp_path / "other.softmax.safetensors"
    save_adapter(adapter, other)
    with pytest.raises(checks.DataError) as caught:
        load_model(folder / "tiny.safetensors", adapter)
    for path in (folder / "tiny.safetensors", adapter):
        assert read_header(path).fingerprint[:16] in str(caught.value)
    with pytest.raises(checks.DataError, match=r"must be an adapter for tiny.safetensors"):
        choose(folder, adapter=str(adapter))


def test_an_encoder_in_a_file_of_its_own(tmp_path: Path) -> None:
    model = random_model(TINY, "softmax", {}, 1)
    own = {k: t for k, t in model.state_dict().items() if k.startswith("encoder.")}
    part = tmp_path / "tiny.encoder.safetensors"
    save_encoder(part, own, TINY.encoder)
    backbone, adapter = tmp_path / "tiny.safetensors", tmp_path / "tiny.softmax.safetensors"
    with pytest.raises(checks.DataError, match="must hold the model's encoder, got another one"):
        save_backbone(backbone, model, encoder=part)  # int8 changed it: it must be loaded first
    from vggt3.model.weights import load_encoder

    model.load_state_dict(load_encoder(part)[1], strict=False)
    mark = save_backbone(backbone, model, encoder=part, dtype=None)
    save_adapter(adapter, model, backbone=mark, dtype=None)
    assert same(load_model(backbone, adapter), model)
    assert not [k for k in read_stored(backbone) if k.startswith("encoder.")]
    whole = save_backbone(tmp_path / "whole.safetensors", model, dtype=None)
    assert whole == mark, "how a backbone is divided must not change its fingerprint"
    assert check_file(backbone).startswith("backbone with 1 further file")

    save_encoder(part, {k: t * 2 for k, t in own.items()}, TINY.encoder)
    with pytest.raises(checks.DataError, match=r"must be the part that tiny.safetensors was saved"):
        load_model(backbone, adapter)
    part.unlink()
    with pytest.raises(checks.DataError, match=r"tiny.encoder.safetensors must lie beside"):
        load_model(backbone, adapter)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.softmax.safetensors"
    save_adapter(path, random_model(TINY, "softmax", {}, 1))
    before = path.read_bytes()
    with disk_of(50_000), pytest.raises(checks.DataError, match="must be writable, got"):
        save_adapter(path, random_model(TINY, "softmax", {}, 2))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    model = random_model(TINY, "softmax", {}, 1)
    with torch.no_grad():
        model.camera_head.empty_pose.fill_(float("nan"))
    with pytest.raises(checks.DataError, match=r"finite values in camera_head.empty_pose"):
        save_backbone(tmp_path / "a.safetensors", model)
    assert not list(tmp_path.iterdir())
    with pytest.raises(checks.UsageError, match="plain JSON data"):
        save_adapter(tmp_path / "b.safetensors", model, record={"x": float("nan")})
    with torch.no_grad():
        model.aggregator.block(0).attn.proj.weight[1, 2] = float("nan")
    for packed in (False, True):
        with pytest.raises(checks.DataError, match=r"finite values in .*attn.proj.weight"):
            save_adapter(tmp_path / "b.safetensors", model, packed=packed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"initial": "learned", "gate": True}])
def test_an_adapter_as_int8(options: dict[str, Any], tmp_path: Path) -> None:
    """Matrices come back within half a step of their channel, all else as bf16 has it."""
    model = random_model(TINY, "ttt_shortconv", options, 3)
    with torch.no_grad():  # nothing that begins as zeros
        for block in model.aggregator.global_blocks:
            for parameter in block.attn.parameters():
                parameter.normal_()
    backbone, wide = tmp_path / "tiny.safetensors", tmp_path / "tiny.wide.safetensors"
    adapter = tmp_path / "tiny.ttt_shortconv.safetensors"
    mark = save_backbone(backbone, model)
    save_adapter(wide, model, backbone=mark)
    save_adapter(adapter, model, backbone=mark, packed=True)
    before, after = (load_model(backbone, file).state_dict() for file in (wide, adapter))
    changed = 0
    for name, tensor in model.state_dict().items():
        if ".attn." in name and "global" in name and name.endswith(".weight") and tensor.dim() >= 2:
            step = tensor.flatten(1).abs().amax(1) / 127
            worst = (after[name] - tensor).flatten(1).abs().amax(1)
            assert (worst <= 0.5001 * step).all(), name
            changed += not torch.equal(after[name], before[name])
        else:
            assert torch.equal(after[name], before[name]), name
    matrices = 5 if "gate" in options else 4  # qkv, proj, rates, conv, gate
    assert changed == matrices * TINY.layers
    assert adapter.stat().st_size < wide.stat().st_size


def test_small_loads_within_a_second(tmp_path: Path) -> None:
    """In the processor's time of one thread: other work on the machine does not count."""
    softmax = random_model(SMALL, "softmax", {}, 0)
    backbone = tmp_path / "small.safetensors"
    mark = save_backbone(backbone, softmax)
    adapter = tmp_path / "small.ttt_shortconv.safetensors"
    save_adapter(adapter, random_model(SMALL, "ttt_shortconv", {}, 0), backbone=mark)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.process_time()
        load_model(backbone, adapter)
        assert time.process_time() - start < 1
    finally:
        torch.set_num_threads(threads)


def test_the_fingerprint_is_as_documented() -> None:
    """Written out once more, byte by byte; a change here orphans every adapter there is."""
    import hashlib

    tensors = {"b": torch.tensor([[1.0, 2.0]]), "a.é": torch.tensor(-0.5), "c": torch.zeros(1, 0)}
    tensors["aggregator.global_blocks.0.attn.w0"] = torch.ones(3)
    told = "a.é\0\0".encode() + b"\x00\xbf" + b"b\x001,2\0" + b"\x80\x3f\x00\x40" + b"c\x001,0\0"
    assert fingerprint(tensors) == hashlib.sha256(told).hexdigest()
    assert fingerprint({k: t.double() for k, t in tensors.items()}) == fingerprint(tensors)


def test_a_header_says_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = Header("backbone", "0" * 64, replace(TINY, preset="mine"), record={"lr": 1e-4})
    write(path, {"x": torch.zeros(1)}, header)
    found = read_header(path)
    assert replace(found, content="") == header and found.content
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    assert path.read_bytes() == rewritten(path, header), "the same content is the same bytes"


def rewritten(path: Path, header: Header) -> bytes:
    write(path, {"x": torch.zeros(1)}, header)
    return path.read_bytes()


def umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask
