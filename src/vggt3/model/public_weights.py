"""Public single-file checkpoints → one backbone and one adapter.

Two dialects (VGGT's softmax and its linearised form), as safetensors or as PyTorch pickles,
which are read as tensors only. A config that lies beside is data: the Python classes it names
are looked up in a table and never imported.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.attention.registry import plan_layers
from vggt3.model import names
from vggt3.model.config import PRESETS, VGGT_1B, ModelConfig
from vggt3.model.encoder import Encoder
from vggt3.model.weight_files import (
    FLOATS,
    check_config,
    open_safely,
    read_header,
    read_stored,
    refuse,
)
from vggt3.model.weights import fingerprint, hold_tensors, unfilled
from vggt3.model.weights_saving import save_adapter, save_backbone, save_encoder

WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training programs put the weights beside other things."""

FAST_WEIGHTS, SOFTMAX, STRUCTURE = "ttt_mlp or ttt_shortconv", "softmax", ""
CLASSES: tuple[tuple[str, str], ...] = (
    (r"ttt|testtime|fastweight|shortconv|lineari[sz]ed", FAST_WEIGHTS),
    (r"^(self|global|frame|cross|memory|memeff|softmax|sdpa|flash|rope)*att(entio)?n$", SOFTMAX),
    (r"(block|mlp|ffn|norm|embed|embedding|rope|head|encoder|transformer|aggregator)\d*d?$", ""),
    (r"^(vggt|gelu|silu|relu|identity|linear|conv2d|layerscale|droppath|dropout)\w*$", ""),
)
"""Python class names (lower case, letters and digits) → the backends they stand for; the empty
name is a class that says nothing about global attention. The first row that matches counts."""


@dataclass(frozen=True)
class Imported:
    """What an import wrote."""

    backbone: Path
    adapter: Path
    fingerprint: str
    config: ModelConfig
    attention: str
    """The adapter's backend."""
    kept: bool
    """The backbone was there already, with the same fingerprint."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors or PyTorch file, unwrapped, under its own names.

    Raises:
        DataError: no such file; one that is damaged, of another format, holds no state dict, or
            would run code when unpickled.
    """
    if not path.is_file():
        refuse(path, "be a checkpoint", "a folder" if path.is_dir() else "no such file")
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        with open_safely(path):
            return read_stored(path)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _state_dict(path, _unpickle(path))
    refuse(path, "be a safetensors or PyTorch checkpoint", f"a file that begins with {start!r}")


def _unpickle(path: Path) -> Any:
    try:
        archive = zipfile.is_zipfile(path)
        with warnings.catch_warnings(action="ignore"):  # the refusal below says it
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wants:
            refuse(path, "hold tensors only", f"a pickle that calls {wants[1]}: refused")
        refuse(path, "be a PyTorch checkpoint of tensors", "a pickle of something else: refused")
    except OSError as error:
        refuse(path, "be a readable file", error.strerror or "an error of the system")
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError):
        # What the library says of it is about its own insides.
        refuse(path, "be a whole PyTorch checkpoint", "a damaged or incomplete file")


def _state_dict(path: Path, found: Any) -> dict[str, Tensor]:
    for _ in range(3):
        wrapped = [key for key in WRAPPERS if isinstance(found, Mapping) and key in found]
        if not wrapped or not isinstance(found[wrapped[0]], Mapping):
            break
        found = found[wrapped[0]]
    if not isinstance(found, Mapping) or not found:
        refuse(path, "hold a state dict", type(found).__name__)
    for name, tensor in found.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            refuse(path, "hold tensors by name", f"{name!r}: {type(tensor).__name__}")
    return dict(found)


def import_checkpoint(
    source: Path,
    output: Path,
    *,
    like: ModelConfig = VGGT_1B,
    attention: str | None = None,
    overwrite: bool = False,
    record: Mapping[str, Any] | None = None,
) -> Imported:
    """Split a public checkpoint into ``PRESET.safetensors`` and ``PRESET.BACKEND.safetensors``.

    Values and their types stay as they are. A backbone that is there already with the same
    fingerprint is kept, so that both dialects share one.

    Args:
        source: the checkpoint; a ``config.json`` beside it is read as data.
        output: the folder.
        like: what shapes cannot tell (heads of the camera head, layers that heads read).
        attention: the backend that the tensors are for, whatever classes a config names.
        overwrite: replace files that are there.
        record: where it came from, for the headers.

    Raises:
        UsageError: the adapter is there.
        DataError: a file that cannot be used, tensors that are missing, unexpected or of
            another shape, or another backbone in its place.
    """
    tensors, config = _named(source, like)
    backend = names.dialect(tensors)
    about = _configured(source.parent / "config.json", backend, attention)
    told = {"imported_from": source.name, **(record or {})}
    told |= {} if about is None else {"config": about}
    specs = plan_layers(backend, names.dialect_options(tensors), config.layers)
    model = unfilled(config, specs)
    hold_tensors(source, names.shapes(model.state_dict()), names.shapes(tensors))
    model.load_state_dict(tensors, assign=True)
    mark = fingerprint(tensors)
    backbone = output / f"{config.preset}.safetensors"
    adapter = output / f"{config.preset}.{backend}.safetensors"
    kept = _is_there(source, backbone, mark, overwrite)
    if adapter.exists() and not overwrite:
        checks.fail(str(adapter), "be replaced only with --overwrite", "an existing file")
    if not kept:
        save_backbone(backbone, model, dtype=None, record=told)
    save_adapter(adapter, model, backbone=mark, dtype=None, record=told)
    return Imported(backbone, adapter, mark, config, backend, kept)


def import_encoder(
    source: Path, output: Path, *, heads: int | None = None, origin: str = ""
) -> str:
    """Store a DINOv2-style encoder as int8 (:mod:`quantisation`); returns its fingerprint.

    Args:
        source: a checkpoint with DINOv2's names.
        output: the file.
        heads: its attention heads; None takes heads of 64 channels.
        origin: where it comes from, for the header.

    Raises:
        DataError: a file that cannot be used; tensors that are missing, unexpected or of
            another shape.
    """
    with _naming(source):
        tensors = names.from_dinov2(read_checkpoint(source))
        _check_floats(tensors)
        config = names.infer_encoder(tensors, 1)
        config = replace(config, heads=heads or max(config.width // 64, 1))
        check_config(config, "encoder")
    with torch.device("meta"):
        expected = Encoder(config).state_dict()
    hold_tensors(
        source,
        names.shapes({f"encoder.{k}": t for k, t in expected.items()}),
        names.shapes(tensors),
    )
    record = {"imported_from": source.name, "origin": origin}
    return save_encoder(output, tensors, config, record)


def _named(source: Path, like: ModelConfig) -> tuple[dict[str, Tensor], ModelConfig]:
    """The tensors under our names, and the sizes they have."""
    with _naming(source):
        tensors = names.from_public(read_checkpoint(source))
        _check_floats(tensors)
        config = names.infer_config(tensors, like)
        check_config(config, "model")
    for known in PRESETS.values():
        if replace(config, preset=known.preset) == known:
            return tensors, known
    return tensors, replace(config, preset="imported") if like.preset in PRESETS else config


@contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Put the file's name in front of what is said of its tensors."""
    try:
        yield
    except checks.DataError as error:
        named = str(error).startswith(str(source))
        raise error if named else checks.DataError(f"{source}: {error}") from error


def _check_floats(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            checks.fail(name, "be of floats", tensor.dtype, error=checks.DataError)


def _is_there(source: Path, backbone: Path, mark: str, overwrite: bool) -> bool:
    """Whether the backbone exists with this fingerprint; another one is in the way."""
    if not backbone.exists():
        return False
    if backbone.resolve() == source.resolve():
        refuse(
            backbone, "be another file than the checkpoint itself", "the same: choose another -o"
        )
    if overwrite:
        return False
    found = read_header(backbone).fingerprint
    if found != mark:
        refuse(
            backbone,
            f"have fingerprint {mark[:16]}… as the checkpoint (else --overwrite or another -o)",
            f"{found[:16]}…",
        )
    return True


def _configured(path: Path, backend: str, attention: str | None) -> Any:
    """A checkpoint's config as data, its classes held to the backend that the tensors show."""
    if attention is not None:
        plan_layers(attention, {}, 1)
        checks.require(
            attention == backend, "--attention", f"be {backend} by the tensors", attention
        )
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        refuse(path, "be JSON", error)
    if attention is None:
        for name in _classes(data):
            meant = _meaning(path, name)
            if meant == FAST_WEIGHTS and backend == SOFTMAX:
                refuse(path, "name classes that fit the tensors (softmax)", name)
    return data


def _meaning(path: Path, name: str) -> str:
    plain = re.sub(r"[\W_]", "", name.rpartition(".")[2]).lower()
    for pattern, backend in CLASSES:
        if re.search(pattern, plain):
            return backend
    refuse(
        path,
        "name Python classes that are known here (they are never imported; "
        "--attention NAME says which backend the tensors are for)",
        f"'{name}'",
    )


def _classes(data: Any, key: str = "") -> Iterator[str]:
    """Every string in a config that names a Python class: by its key, or by its dotted path."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _classes(value, str(name))
    elif isinstance(data, list):
        for value in data:
            yield from _classes(value, key)
    elif isinstance(data, str):
        dotted = re.fullmatch(r"[A-Za-z_]\w*([.:][A-Za-z_]\w*)*[.:][A-Z]\w*", data)
        keyed = re.search(r"(class|cls|target_?|path)$", key, re.IGNORECASE)
        if dotted or (keyed and re.fullmatch(r"[\w.:]+", data)):
            yield data.replace(":", ".")
