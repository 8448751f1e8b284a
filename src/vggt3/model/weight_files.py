"""Weight files: safetensors with one readable header, read safely, written whole or not at all.

The file's ``__metadata__`` has one entry, ``vggt3``: a JSON object with

========== =======================================================================================
format      1, the version of this description
kind        ``backbone``, ``adapter`` or ``encoder`` (a part of a backbone)
fingerprint SHA-256 of the backbone (of the encoder's tensors for that kind); see :mod:`weights`
config      :class:`ModelConfig` as data; :class:`EncoderConfig` as data for an encoder
layers      adapter: for each global layer ``{"name": backend, "options": {…}, "start": …}``;
            start is null, or ``[sum, sum of squares]`` of the layer's fixed buffers where they
            were left out because the layer draws them again from its own seed
content     SHA-256 over this file's tensors as stored (:func:`content_of`)
parts       backbone: ``[{"file": name in the same folder, "sha256": …}]`` of its further files
record      how it was trained or where it came from: any JSON object
made_by     the version that wrote it
========== =======================================================================================

Tensors have the model's own names. An int8 tensor ``NAME`` has its fp32 factors of the output
channels beside it as ``NAME.scale`` (:mod:`quantisation`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vggt3 import __version__, checks
from vggt3.attention.registry import LayerSpec
from vggt3.files import sheltered
from vggt3.model import quantisation
from vggt3.model.config import VGGT_1B, EncoderConfig, ModelConfig

KEY = "vggt3"
FORMAT = 1
KINDS = ("backbone", "adapter", "encoder")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LARGEST = {"layers": 512, "depth": 512, "camera_depth": 512, "position_grid": 1024}
"""Beyond these a header is taken for damaged rather than built."""


@dataclass(frozen=True)
class Part:
    """A further file of a backbone."""

    file: str
    """Its name, in the same folder."""
    sha256: str
    """Of all its bytes."""


@dataclass(frozen=True)
class StoredLayer:
    """One global layer of an adapter."""

    spec: LayerSpec
    """Its backend and options."""
    start: tuple[float, float] | None = None
    """Sum and sum of squares of the buffers that are drawn again on loading; None: all stored."""


@dataclass(frozen=True)
class Header:
    """What a weight file says of itself."""

    kind: str
    """``backbone``, ``adapter`` or ``encoder``."""
    fingerprint: str
    """Of the backbone it is or belongs to; for an encoder, of its own tensors."""
    config: ModelConfig | EncoderConfig
    """The sizes: of the encoder only where that is what it holds."""
    layers: tuple[StoredLayer, ...] = ()
    """Adapter: each global layer's backend and options."""
    parts: tuple[Part, ...] = ()
    """Backbone: its further files."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained or where it came from."""
    content: str = ""
    """SHA-256 over the file's own tensors; :func:`write` fills it in."""

    @property
    def model(self) -> ModelConfig:
        """The sizes of the whole model (not for an encoder)."""
        assert isinstance(self.config, ModelConfig)
        return self.config

    def to_json(self) -> str:
        """The header as it is stored."""
        data = {
            "format": FORMAT,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "config": asdict(self.config),
            "layers": [
                {"name": x.spec.name, "options": dict(x.spec.options), "start": x.start}
                for x in self.layers
            ],
            "parts": [asdict(part) for part in self.parts],
            "content": self.content,
            "record": dict(self.record),
            "made_by": f"vggt3 {__version__}",
        }
        try:
            return json.dumps(data, allow_nan=False)
        except (TypeError, ValueError) as error:
            checks.fail("options and training record", "be plain JSON data", error)


def refuse(path: Path, wanted: str, got: object) -> NoReturn:
    """Raise a DataError about a file."""
    checks.fail(str(path), wanted, got, error=checks.DataError)


def is_text(value: object) -> bool:
    """Whether a header's entry is a string of letters."""
    return isinstance(value, str) and value.isprintable() and value != ""


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _is_plain_name(value: object) -> bool:
    """A file in the same folder: no separator of any system, no step up, no drive."""
    return is_text(value) and not set(str(value)) & set("/\\:") and str(value) not in (".", "..")


def check_config(config: ModelConfig | EncoderConfig, name: str) -> None:
    """Hold sizes to what a model can be built of.

    Raises:
        DataError: a size that is no positive whole number, is absurd, or does not divide.
    """

    def hold(condition: bool, wanted: str, got: object) -> None:
        checks.require(condition, name, wanted, got, error=checks.DataError)

    for f in fields(config):
        value = getattr(config, f.name)
        whole = f.type == "int"
        many = str(f.type).startswith("tuple")
        if many:
            hold(isinstance(value, tuple) and len(value) == 4, f"have four {f.name}", value)
        for number in value if many else (value,) if whole else ():
            least = 0 if f.name in ("registers", "feature_layers") else 1
            known = type(number) is int and least <= number <= LARGEST.get(f.name, 2**20)
            hold(known, f"have a sensible {f.name}", repr(value))
    if isinstance(config, EncoderConfig):
        hold(config.width % config.heads == 0, "divide width by heads", config)
        return
    check_config(config.encoder, name)
    divides = config.width % (4 * config.heads) == 0
    hold(divides, "have a width that is a multiple of 4·heads", (config.width, config.heads))
    divides = 2 * config.width % config.camera_heads == 0
    hold(divides, "divide 2·width by camera_heads", (config.width, config.camera_heads))
    waves = (*config.dense_projections, config.dense_features // 2)
    hold(all(c % 4 == 0 for c in waves), "divide the dense heads' channels by 4 (8)", waves)
    reads = config.feature_layers
    hold(sorted(set(reads)) == list(reads), "read four layers in order", reads)
    hold(max(reads) < config.layers, "read layers that it has", f"{reads} of {config.layers}")
    hold(is_text(config.preset), "name its preset", repr(config.preset))
    hold(config.pixel_offset in (0.0, 0.5), "have pixel_offset 0 or 0.5", config.pixel_offset)


def read_header(path: Path) -> Header:
    """What a weight file says of itself; its tensors are not read.

    Raises:
        DataError: no such file, a damaged one, no safetensors, not one of ours, or a header
            whose entries are missing or of another type.
    """
    with open_safely(path) as file:
        metadata = file.metadata() or {}
    if KEY not in metadata:
        refuse(
            path,
            "be a vggt3 weight file",
            "safetensors without our header (vggt3 weights import brings in public checkpoints)",
        )
    try:
        data = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        refuse(path, "have a header in JSON", error)
    if not isinstance(data, dict):
        refuse(path, "have a header that is a JSON object", type(data).__name__)
    if data.get("format") != FORMAT:
        refuse(path, f"be of format {FORMAT}", f"{data.get('format')} ({data.get('made_by')})")
    return _parse(path, data)


def _parse(path: Path, data: Mapping[str, Any]) -> Header:
    def entry(name: str, holds: Callable[[Any], bool], wanted: str) -> Any:
        value = data.get(name)
        if not holds(value):
            refuse(path, f"have {wanted} as '{name}' in its header", repr(value)[:80])
        return value

    kind = entry("kind", lambda v: v in KINDS, f"one of {', '.join(KINDS)}")
    fingerprint = entry("fingerprint", _is_digest, "64 hexadecimal digits")
    sizes = entry("config", lambda v: isinstance(v, dict), "sizes")
    record = entry("record", lambda v: isinstance(v, dict), "an object")
    parts = entry("parts", _are_parts, "files of the same folder")
    layers = entry("layers", _are_layers, "a backend a layer")
    whole = {**VGGT_1B.to_data(), "encoder": sizes} if kind == "encoder" else sizes
    try:
        model = ModelConfig.from_data(whole)
        check_config(model, "model config")
    except checks.DataError as error:
        raise checks.DataError(f"{path}: {error}") from error
    if kind == "adapter" and len(layers) != model.layers:
        refuse(path, f"name {model.layers} layers", len(layers))
    return Header(
        kind,
        fingerprint,
        model.encoder if kind == "encoder" else model,
        tuple(_stored_layer(x) for x in layers),
        tuple(Part(x["file"], x["sha256"]) for x in parts),
        record,
        entry("content", _is_digest, "64 hexadecimal digits"),
    )


def _stored_layer(data: Mapping[str, Any]) -> StoredLayer:
    """One row of ``layers``."""
    start = data.get("start")
    numbers = None if start is None else (float(start[0]), float(start[1]))
    return StoredLayer(LayerSpec.of(data["name"], data["options"]), numbers)


def _are_layers(value: Any) -> bool:
    def plain(option: Any) -> bool:
        return option is None or isinstance(option, str | int | float)

    return isinstance(value, list) and all(
        isinstance(x, dict)
        and is_text(x.get("name"))
        and isinstance(x.get("options"), dict)
        and _is_start(x.get("start"))
        and all(
            all(map(plain, option)) if isinstance(option, list) else plain(option)
            for option in x["options"].values()
        )
        for x in value
    )


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(x, dict) and _is_plain_name(x.get("file")) and _is_digest(x.get("sha256"))
        for x in value
    )


def _is_start(value: Any) -> bool:
    number = (int, float)
    return value is None or (
        isinstance(value, list) and len(value) == 2 and all(isinstance(x, number) for x in value)
    )


def open_safely(path: Path, what: str = "a weight file") -> Any:
    """A safetensors file, opened; nothing but its table of contents is read.

    Raises:
        DataError: no such file, one that cannot be read, or no (whole) safetensors.
    """
    if not path.is_file():
        refuse(path, f"be {what}", "a folder" if path.is_dir() else "no such file")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        refuse(path, "be a whole safetensors file", error)
    except OSError as error:
        refuse(path, "be readable", error.strerror or error)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, int8 ones multiplied out in fp32.

    Raises:
        DataError: as :func:`read_stored`; an int8 tensor without its factors.
    """
    try:
        return quantisation.unpack(read_stored(path))
    except checks.DataError as error:
        named = str(error).startswith(str(path))
        raise error if named else checks.DataError(f"{path}: {error}") from error


def read_stored(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, as they are stored.

    Raises:
        DataError: as :func:`open_safely`; a tensor of another type than floats and int8.
    """
    with open_safely(path) as file:
        try:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, RuntimeError, ValueError, OverflowError) as error:
            refuse(path, "hold readable tensors", error)
    for name, tensor in stored.items():
        if tensor.dtype not in (*FLOATS, torch.int8):
            refuse(path, f"hold floats or int8 as {name}", tensor.dtype)
    return stored


def content_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over tensors in the order of their names: name, type, sizes, bytes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write(path: Path, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Write a file beside ``path`` and move it there: an old one stays until the new is whole.

    Raises:
        DataError: it cannot be written (the reason; an existing file is as it was), or a tensor
            holds a value that is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            refuse(path, f"hold finite values in {name}", "NaN or infinity")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    put(path, plain, {KEY: replace(header, content=content_of(plain)).to_json()})


def put(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write safetensors beside ``path`` (beside what that links to) and move them there.

    Raises:
        DataError: the reason why not; an existing file is as it was.
    """
    place = Path(os.path.realpath(path))
    try:
        with sheltered(place, path) as beside:
            beside.touch()
            mode = beside.stat().st_mode
            save_file(dict(tensors), beside, metadata)
            beside.chmod(mode)  # some versions write a private file and move it here
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            beside.replace(place)
    except checks.UsageError as error:
        refuse(path, "be writable", error.__context__ or error)
    except (SafetensorError, OSError) as error:
        refuse(path, "be writable", error)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
