"""Weight files that are damaged, foreign or lie: each is named with its reason."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.model.weight_cases import copy_of, edit_header, put, write_tiny
from vggt3 import checks
from vggt3.model.weight_files import read_header, read_stored, write
from vggt3.model.weight_report import check_file
from vggt3.model.weights import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone with three adapters. Read only."""
    return write_tiny(tmp_path_factory.mktemp("weights"))


HEADERS: dict[str, tuple[Any, str]] = {
    "not JSON": (lambda data: "{", "have a header in JSON"),
    "deep": (lambda data: "[" * 100_000, "have a header in JSON"),
    "a list": (lambda data: "[]", "a header that is a JSON object, got list"),
    "version": (put("format", 2), "be of format 1, got 2"),
    "kind": (put("kind", "lora"), "have one of backbone, adapter, encoder as 'kind'"),
    "kind type": (put("kind", ["adapter"]), "as 'kind'"),
    "fingerprint": (put("fingerprint", "abc"), "64 hexadecimal digits as 'fingerprint'"),
    "fingerprint type": (put("fingerprint", 7), "as 'fingerprint'"),
    "config type": (put("config", "tiny"), "have sizes as 'config'"),
    "config field": (put("config", "depthh", 1), "have the fields of ModelConfig"),
    "width text": (put("config", "width", "64"), "width"),
    "width true": (put("config", "width", True), "sensible width, got True"),
    "width zero": (put("config", "width", 0), "sensible width"),
    "width huge": (put("config", "width", 10**12), "sensible width"),
    "layers huge": (put("config", "layers", 10**9), "sensible layers"),
    "heads": (put("config", "heads", 7), "multiple of 4·heads"),
    "features": (put("config", "feature_layers", [0, 1, 2, 9]), "read layers that it has"),
    "features order": (put("config", "feature_layers", [0, 2, 1, 3]), "four layers in order"),
    "features text": (put("config", "feature_layers", "0123"), "have four feature_layers"),
    "features few": (put("config", "feature_layers", [0, 1]), "have four feature_layers"),
    "projections": (put("config", "dense_projections", [1, 2, 3, None]), "dense_projections"),
    "offset": (put("config", "pixel_offset", 0.3), "pixel_offset 0 or 0.5"),
    "encoder": (put("config", "encoder", []), "describe the encoder"),
    "encoder depth": (put("config", "encoder", "depth", -1), "sensible depth"),
    "layers": (put("layers", []), "name 4 layers, got 0"),
    "layer type": (put("layers", 0, "softmax"), "have a backend a layer as 'layers'"),
    "layer name": (put("layers", 0, "name", 3), "have a backend a layer as 'layers'"),
    "options": (put("layers", 0, "options", {"hidden": {"a": 1}}), "a backend a layer"),
    "start": (put("layers", 0, "start", ["a", 1]), "a backend a layer"),
    "parts": (put("parts", [{"file": "x"}]), "files of the same folder as 'parts'"),
    "record": (put("record", None), "have an object as 'record'"),
    "no content": (lambda data: data.pop("content") and None, "as 'content'"),
    "plug-in": (put("layers", 0, "name", "not_here"), "be one of .*, got 'not_here'"),
    "option": (put("layers", 0, "options", {"hiden": 2}), "option of ttt_shortconv .*hidden"),
    "value": (put("layers", 0, "options", {"sweeps": -1}), "sweeps must be"),
    "value type": (put("layers", 0, "options", {"hidden": "wide"}), "hidden must be"),
    "shape": (put("layers", 0, "options", {"kernel_size": 5}), "conv.weight"),
    "backbone": (put("fingerprint", "0" * 64), "must be an adapter for tiny.safetensors"),
}


@pytest.mark.parametrize("which", HEADERS)
def test_a_header_that_is_wrong(folder: Path, tmp_path: Path, which: str) -> None:
    path = copy_of(folder, tmp_path) / "tiny.ttt_shortconv.safetensors"
    edit, told = HEADERS[which]
    edit_header(path, edit)
    with pytest.raises(checks.DataError, match=told) as caught:
        load_model(tmp_path / "tiny.safetensors", path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "C:x", "a\nb", "a\0"]
)
def test_a_part_lies_in_the_same_folder(folder: Path, tmp_path: Path, name: str) -> None:
    path = copy_of(folder, tmp_path) / "tiny.safetensors"
    edit_header(path, put("parts", [{"file": name, "sha256": "0" * 64}]))
    with pytest.raises(checks.DataError, match="have files of the same folder as 'parts'"):
        read_header(path)


def broken_files(whole: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "truncated": (whole[:-100], "be a whole safetensors file"),
        "cut in the header": (whole[:300], "be a whole safetensors file"),
        "empty": (b"", "be a whole safetensors file"),
        "text": (b"weights, honestly" * 50, "be a whole safetensors file"),
        "huge header": (struct.pack("<Q", 1 << 60) + whole[8:], "be a whole safetensors file"),
        "zip": (b"PK\x03\x04" + b"\0" * 500, "be a whole safetensors file"),
    }


@pytest.mark.parametrize("which", broken_files(b""))
def test_a_file_that_is_broken(folder: Path, tmp_path: Path, which: str) -> None:
    path = copy_of(folder, tmp_path) / "tiny.softmax.safetensors"
    content, told = broken_files(path.read_bytes())[which]
    path.write_bytes(content)
    with pytest.raises(checks.DataError, match=told) as caught:
        load_model(tmp_path / "tiny.safetensors", path)
    assert str(path) in str(caught.value)


def test_files_of_others(folder: Path, tmp_path: Path) -> None:
    backbone, adapter = folder / "tiny.safetensors", folder / "tiny.softmax.safetensors"
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    header = read_header(adapter)
    integers = tmp_path / "integers.safetensors"
    write(integers, {"aggregator.global_blocks.0.attn.qkv.weight": torch.arange(3)}, header)
    extra, less = tmp_path / "extra.safetensors", tmp_path / "less.safetensors"
    stored = read_stored(adapter)
    write(extra, stored | {"aggregator.global_blocks.9.attn.x": torch.zeros(1)}, header)
    write(less, dict(list(stored.items())[1:]), header)
    cases = [
        (tmp_path / "absent.safetensors", "be a weight file, got no such file"),
        (tmp_path, "be a weight file, got a folder"),
        (foreign, r"be a vggt3 weight file, got .*vggt3 weights import"),
        (backbone, "be an adapter, got a file of kind backbone"),
        (integers, "hold floats or int8 as .*qkv.weight, got torch.int64"),
        (extra, "hold the attention of 4 layers only"),
        (less, "missing: aggregator.global_blocks.0.attn.k_norm.bias"),
    ]
    for path, told in cases:
        with pytest.raises(checks.DataError, match=told):
            load_model(backbone, path)
    with pytest.raises(checks.DataError, match="be a backbone, got a file of kind adapter"):
        load_model(adapter, adapter)


def test_a_changed_value_is_found_by_check(folder: Path, tmp_path: Path) -> None:
    copy_of(folder, tmp_path)
    for path in sorted(tmp_path.glob("*.safetensors")):
        check_file(path)
        damaged = bytearray(path.read_bytes())
        damaged[-3] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(checks.DataError, match="damaged"):
            check_file(path)


def test_a_backbone_of_another_fingerprint_is_found_by_check(folder: Path, tmp_path: Path) -> None:
    path = copy_of(folder, tmp_path) / "tiny.safetensors"
    edit_header(path, put("fingerprint", "0" * 64))
    with pytest.raises(checks.DataError, match=f"must have fingerprint {'0' * 64}, got"):
        check_file(path)
    with pytest.raises(checks.DataError, match=r"must be an adapter for tiny.safetensors"):
        check_file(tmp_path / "tiny.softmax.safetensors")
