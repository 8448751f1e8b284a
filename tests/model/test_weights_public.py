"""Public checkpoints of both dialects: split, composed again, equal to the reference outputs."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.model.conftest import LIKE, Golden, distance
from vggt3 import checks
from vggt3.model import public_weights
from vggt3.model.config import PRESETS
from vggt3.model.public_weights import Imported, import_checkpoint, read_checkpoint
from vggt3.model.weight_files import read_header
from vggt3.model.weight_report import check_file
from vggt3.model.weights import load_model

SOFTMAX, LINEARISED = "vggt", "vggt_ttt"


def public(golden: Golden, which: str) -> dict[str, Tensor]:
    """A single-file checkpoint under its public names; the compact copy keeps it in two files."""
    adapter = golden.folder / f"{which}.adapter.safetensors"
    if not adapter.is_file():
        return golden.file(f"{which}.weights")
    backbone = golden.file("vggt.weights")
    kept = {k: t for k, t in backbone.items() if not is_global_attention(k)}
    return kept | golden.file(f"{which}.adapter")


def is_global_attention(name: str) -> bool:
    return name.startswith("aggregator.global_blocks.") and ".attn." in name


def with_extras(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {
        "track_head.tracker.x.weight": torch.ones(2, 2),
        "aggregator.patch_embed.mask_token": torch.zeros(1, 64),
    }


def write(path: Path, tensors: dict[str, Tensor], form: str) -> Path:
    """The checkpoint as one of the files that people pass around."""
    if form == "safetensors":
        save_file(tensors, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    path = path.with_suffix(".pt")
    wrapped: Any = tensors
    if form == "nested":
        wrapped = {"epoch": 3, "model": {f"module.{k}": t for k, t in tensors.items()}}
    elif form == "state_dict":
        wrapped = {"state_dict": tensors, "optimizer": {"lr": 0.1}}
    torch.save(wrapped, path, _use_new_zipfile_serialization=form != "legacy")
    return path


FORMS = ["safetensors", "pt", "nested", "state_dict", "legacy"]


@pytest.mark.parametrize("form", FORMS)
def test_golden_weights_in_both_dialects(golden: Golden, tmp_path: Path, form: str) -> None:
    done: dict[str, Imported] = {}
    for which in (SOFTMAX, LINEARISED):
        source = write(tmp_path / which, with_extras(public(golden, which)), form)
        done[which] = import_checkpoint(source, tmp_path / "out", like=LIKE)
    soft, fast = done[SOFTMAX], done[LINEARISED]
    assert (soft.attention, fast.attention) == ("softmax", "ttt_shortconv")
    assert soft.backbone == fast.backbone and not soft.kept and fast.kept
    assert soft.fingerprint == fast.fingerprint
    for path in (soft.backbone, soft.adapter, fast.adapter):
        assert read_header(path).fingerprint == soft.fingerprint
        check_file(path)
    if form not in ("safetensors", "nested"):
        return
    outputs = {soft.adapter: "vggt.outputs", fast.adapter: "vggt_ttt.outputs_steps2"}
    for adapter, file in outputs.items():
        model = load_model(soft.backbone, adapter)
        with torch.no_grad():
            found = model(golden.scene())
        expected = golden.file(file)
        assert distance(found.pose, expected["pose_enc"]) < 1e-5
        assert distance(found.dense[0].depth[..., None], expected["depth"]) < 1e-5
        assert distance(found.dense[0].points, expected["world_points"]) < 1e-5


def test_the_dialects_split_alike_one_by_one(golden: Golden, tmp_path: Path) -> None:
    marks = set()
    for which in (SOFTMAX, LINEARISED):
        source = write(tmp_path / which, public(golden, which), "safetensors")
        marks.add(import_checkpoint(source, tmp_path / f"{which}_out", like=LIKE).fingerprint)
    assert len(marks) == 1


def test_values_and_types_stay(golden: Golden, tmp_path: Path) -> None:
    tensors = public(golden, LINEARISED)
    done = import_checkpoint(write(tmp_path / "a", tensors, "pt"), tmp_path / "out", like=LIKE)
    stored = read_checkpoint(done.adapter)
    name = "aggregator.global_blocks.1.attn."
    assert torch.equal(stored[f"{name}w1"], tensors[f"{name}w1"])
    assert torch.equal(stored[f"{name}rates.weight"], tensors[f"{name}lr_fc.weight"])
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    assert read_header(done.adapter).record["imported_from"] == "a.pt"


def test_a_size_of_its_own_gets_a_name_of_its_own(golden: Golden, tmp_path: Path) -> None:
    source = write(tmp_path / "a", public(golden, SOFTMAX), "safetensors")
    done = import_checkpoint(source, tmp_path)
    assert done.config.preset == "imported" and done.backbone.name == "imported.safetensors"
    assert done.config.preset not in PRESETS


def test_what_is_there_is_not_replaced(golden: Golden, tmp_path: Path) -> None:
    tensors, out = public(golden, SOFTMAX), tmp_path / "out"
    source = write(tmp_path / "a", tensors, "safetensors")
    first = import_checkpoint(source, out, like=LIKE)
    with pytest.raises(checks.UsageError, match=r"softmax\.safetensors must be replaced only with"):
        import_checkpoint(source, out, like=LIKE)
    changed = {k: t + 1 if k == "aggregator.camera_token" else t for k, t in tensors.items()}
    other = write(tmp_path / "b", changed, "safetensors")
    with pytest.raises(checks.DataError, match=r"must have fingerprint .* as the checkpoint"):
        import_checkpoint(other, out, like=LIKE)
    assert read_header(first.backbone).fingerprint == first.fingerprint
    again = import_checkpoint(other, out, like=LIKE, overwrite=True)
    assert read_header(again.backbone).fingerprint == again.fingerprint != first.fingerprint
    for overwrite in (False, True):
        own = write(tmp_path / "golden", tensors, "safetensors")
        with pytest.raises(checks.DataError, match="another file than the checkpoint itself"):
            import_checkpoint(own, tmp_path, like=LIKE, overwrite=overwrite)


CHANGES: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "missing": ({"camera_head.token_norm.bias": None}, "missing: camera_head.token_norm.bias"),
    "no token": ({"aggregator.camera_token": None}, "hold aggregator.camera_token, got no such"),
    "unexpected": ({"extra.weight": torch.zeros(1)}, "unexpected: extra.weight"),
    "misshaped": (
        {"camera_head.token_norm.bias": torch.zeros(7)},
        r"camera_head.token_norm.bias \[7\] in place of \[128\]",
    ),
    "another copy": (
        {"aggregator.global_blocks.0.attn.short_conv_qkv.2.conf.weight": torch.zeros(64, 1, 3, 3)},
        r"conf\.weight must equal .*conv\.weight, got other values",
    ),
    "integers": ({"camera_head.token_norm.bias": torch.arange(128)}, "be of floats, got torch.int"),
    "many layers": (
        {"aggregator.global_blocks.99999999.norm1.weight": torch.zeros(64)},
        "missing|sensible|layers",
    ),
    "two heads": (
        {"aggregator.frame_blocks.0.attn.q_norm.weight": torch.zeros(24)},
        r"q_norm.weight \[24\]",
    ),
}


@pytest.mark.parametrize("which", CHANGES)
def test_a_checkpoint_that_does_not_fit(golden: Golden, tmp_path: Path, which: str) -> None:
    changes, told = CHANGES[which]
    merged = {**public(golden, LINEARISED), **changes}
    tensors = {k: t for k, t in merged.items() if t is not None}
    source = write(tmp_path / "a", tensors, "pt")
    with pytest.raises(checks.DataError, match=told) as caught:
        import_checkpoint(source, tmp_path / "out", like=LIKE)
    assert str(source) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@dataclass
class Malicious:
    command: str

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_malicious_pickle(tmp_path: Path, form: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "model.pt"
    evil = {"model": {"a": torch.zeros(1)}, "b": Malicious(f"touch {mark}")}
    if form == "bare":
        path.write_bytes(pickle.dumps(evil["b"], protocol=2))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(checks.DataError) as caught:
        import_checkpoint(path, tmp_path / "out")
    told = str(caught.value)
    assert told.endswith("must hold tensors only, got a pickle that calls posix.system: refused")
    assert "\n" not in told and not mark.exists()


def test_files_that_are_no_checkpoints(golden: Golden, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", public(golden, SOFTMAX), "pt").read_bytes()
    flat = write(tmp_path / "flat", {"a": torch.zeros(8)}, "safetensors").read_bytes()
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"model": {"a": "b"}}, tmp_path / "words.pt")
    torch.save({}, tmp_path / "none.pt")
    cases: dict[str, tuple[bytes | None, str]] = {
        "cut.pt": (
            whole[: len(whole) // 2],
            "be a whole PyTorch checkpoint, got a damaged or incom",
        ),
        "cut.safetensors": (flat[:-4], "be a whole safetensors file"),
        "short.pt": (b"\x80\x02", "be a whole PyTorch checkpoint"),
        "empty.pt": (b"", "be a safetensors or PyTorch checkpoint, got a file that begins with"),
        "text.pt": (b"hello there, this is text", "be a safetensors or PyTorch checkpoint"),
        "photo.bin": (b"\xff\xd8\xff\xe0" * 9, "be a safetensors or PyTorch checkpoint"),
        "list.pt": (None, "hold a state dict, got list"),
        "words.pt": (None, "hold tensors by name, got 'a': str"),
        "none.pt": (None, "hold a state dict, got dict"),
        "flat.safetensors": (None, "must hold aggregator.camera_token, got no such tensor"),
    }
    for name, (content, told) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(checks.DataError, match=told) as caught:
            import_checkpoint(path, tmp_path / "out")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), name
    for path, told in ((tmp_path, "got a folder"), (tmp_path / "absent.pt", "got no such file")):
        with pytest.raises(checks.DataError, match=told):
            import_checkpoint(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"attn_class": "os.system"}, "'os.system'"),
        ({"model": {"global": {"_target_": "some.package.Unheard"}}}, "'some.package.Unheard'"),
        ({"blocks": ["pkg.layers:Strange"]}, "'pkg.layers.Strange'"),
        ([[["a.b.Mystery"]]], "'a.b.Mystery'"),
    ],
)
def test_classes_in_a_config_are_never_imported(
    golden: Golden, tmp_path: Path, config: Any, told: str
) -> None:
    source = write(tmp_path / "model", public(golden, LINEARISED), "safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(checks.DataError, match=f"never imported.*got {told}"):
        import_checkpoint(source, tmp_path / "out", like=LIKE)
    done = import_checkpoint(source, tmp_path / "out", like=LIKE, attention="ttt_shortconv")
    assert read_header(done.adapter).record["config"] == config


def test_a_config_whose_classes_are_known(golden: Golden, tmp_path: Path) -> None:
    config = {
        "attn_class": "pkg.layers.attention.Attention",
        "global_attn_class": "pkg.ttt.TTTShortConvAttention",
        "block_fn": "pkg.layers.Block",
        "dtype": "torch.bfloat16",
        "img_size": 518,
        "file": "model.safetensors",
    }
    source = write(tmp_path / "model", public(golden, LINEARISED), "safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = import_checkpoint(source, tmp_path / "out", like=LIKE)
    assert read_header(done.adapter).record["config"] == config
    soft = write(tmp_path / "soft", public(golden, SOFTMAX), "safetensors")
    with pytest.raises(checks.DataError, match="name classes that fit the tensors"):
        import_checkpoint(soft, tmp_path / "out", like=LIKE)
    with pytest.raises(checks.UsageError, match="--attention must be softmax by the tensors"):
        import_checkpoint(soft, tmp_path / "out", like=LIKE, attention="linear")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"])
def test_a_config_that_is_no_json(golden: Golden, tmp_path: Path, text: str) -> None:
    source = write(tmp_path / "model", public(golden, LINEARISED), "safetensors")
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(checks.DataError, match=r"config\.json must be JSON"):
        import_checkpoint(source, tmp_path / "out", like=LIKE)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("pkg.TTTAttention", public_weights.FAST_WEIGHTS),
        ("FastWeightGluMLP", public_weights.FAST_WEIGHTS),
        ("a.b.MemEffAttention", public_weights.SOFTMAX),
        ("a.Attention", public_weights.SOFTMAX),
        ("vision_transformer.NestedTensorBlock", public_weights.STRUCTURE),
        ("torch.nn.LayerNorm", public_weights.STRUCTURE),
        ("PatchEmbed", public_weights.STRUCTURE),
    ],
)
def test_meanings_of_class_names(name: str, meaning: str) -> None:
    assert public_weights._meaning(Path("config.json"), name) == meaning
