"""Scene files: named tensors and plain facts in one safetensors file, sealed by a checksum.

The file's ``__metadata__`` has one entry, ``vggt3``: a JSON object with ``kind`` "scene",
``format``, ``made_by``, ``facts`` (whatever the writer says), ``packed`` (how halved tensors are
to be read) and ``checksum``: SHA-256 over all of that and over the tensors as stored, so that a
change of a name counts like one of a number.

A halved tensor is float16 after a division by a power of two that brings its largest value to
1 or just below, which keeps sums over millions of tokens in float16's range.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor

from vggt3 import __version__, checks
from vggt3.model.weight_files import KEY, content_of, open_safely, put

FORMAT = 1
SUFFIX = ".vggt3"
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}
READABLE = (*DTYPES.values(), torch.int64, torch.int32, torch.bool)

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Packed:
    """Tensors as they are stored."""

    tensors: dict[str, Tensor]
    how: dict[str, tuple[str, int]]
    """Of each halved tensor: its own type, and the power of two that it was divided by."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors in the file."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def unpacked(self) -> dict[str, Tensor]:
        """The tensors as they were, as far as halving left them."""
        found = dict(self.tensors)
        for name, (dtype, power) in self.how.items():
            wide = found[name].to(torch.promote_types(DTYPES[dtype], torch.float32))
            found[name] = torch.ldexp(wide, torch.tensor(power)).to(DTYPES[dtype])
        return found


def pack(tensors: Tensors, halve: frozenset[str] = frozenset()) -> Packed:
    """Lay tensors out for a file; those named in ``halve`` as float16."""
    stored: dict[str, Tensor] = {}
    how: dict[str, tuple[str, int]] = {}
    for name, tensor in tensors.items():
        stored[name] = tensor.detach()
        if name not in halve or not tensor.is_floating_point():
            continue
        dtype, power = str(tensor.dtype).removeprefix("torch."), 0
        if tensor.device.type != "meta" and tensor.numel():
            power = math.frexp(float(tensor.detach().abs().max()))[1]
        wide = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
        stored[name] = torch.ldexp(wide, torch.tensor(-power, device=wide.device)).half()
        how[name] = dtype, power
    return Packed(stored, how)


def write_scene_file(
    path: Path,
    packed: Packed,
    facts: Mapping[str, Any],
    *,
    may_be_infinite: frozenset[str] = frozenset(),
) -> int:
    """Write a scene beside ``path`` and move it there; returns the file's bytes.

    Raises:
        DataError: it cannot be written, or a tensor (but ``may_be_infinite``) holds a value
            that is not finite.
    """
    for name, tensor in packed.tensors.items():
        if tensor.is_floating_point() and name not in may_be_infinite:
            whole = bool(torch.isfinite(tensor).all())
            checks.require(
                whole, str(path), f"hold finite {name}", "NaN or inf", error=checks.DataError
            )
    stored: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in packed.tensors.items():
        stored[name] = _alone(tensor, places)
    header = {
        "kind": "scene",
        "format": FORMAT,
        "made_by": f"vggt3 {__version__}",
        "facts": facts,
        "packed": packed.how,
    }
    put(path, stored, {KEY: _json({**header, "checksum": _checksum(header, stored)})})
    return path.stat().st_size


def read_scene_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a scene file, its checksum held.

    Raises:
        DataError: no such file, no scene file, another format, truncated, or changed since it
            was written.
    """
    with open_safely(path, "a scene file") as file:
        header = _header(path, file.metadata() or {})
        try:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, RuntimeError, ValueError, OverflowError) as error:
            _refuse(path, "hold readable tensors", error)
    told = header.pop("checksum", None)
    found = _checksum(header, stored)
    if told != found:
        _refuse(path, "be as it was written (checksum)", f"{found[:16]}…, not {str(told)[:16]}…")
    odd = [name for name, tensor in stored.items() if tensor.dtype not in READABLE]
    if odd:
        _refuse(path, f"hold numbers as {odd[0]}", stored[odd[0]].dtype)
    try:
        how = {name: (str(dtype), int(n)) for name, (dtype, n) in header["packed"].items()}
        return Packed(stored, how).unpacked(), dict(header["facts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _refuse(path, "have a whole header", checks.reason(error))


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        _refuse(path, "be a scene that vggt3 map wrote", "safetensors without our header")
    try:
        header = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        _refuse(path, "have a header in JSON", error)
    kind = header.get("kind") if isinstance(header, dict) else None
    if kind != "scene":
        _refuse(path, "be a scene that vggt3 map wrote", f"a file of kind '{kind}'")
    if header.get("format") != FORMAT:
        told = f"format {header.get('format')} ({header.get('made_by')}); map the photos again"
        _refuse(path, f"be a scene of format {FORMAT}", told)
    return header


def _alone(tensor: Tensor, places: set[int]) -> Tensor:
    """On the CPU, without gaps, in memory that is no other tensor's, as safetensors wants it."""
    tensor = tensor.cpu().contiguous()
    part = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    if part or tensor.data_ptr() in places:
        tensor = tensor.clone()
    places.add(tensor.data_ptr())
    return tensor


def _checksum(header: Mapping[str, Any], stored: Tensors) -> str:
    return hashlib.sha256((_json(header) + content_of(stored)).encode()).hexdigest()


def _json(data: Mapping[str, Any]) -> str:
    # Sorted, and surrogates escaped: the same text whenever it is written again.
    return json.dumps(data, sort_keys=True, allow_nan=False)


def _refuse(path: Path, wanted: str, got: object) -> NoReturn:
    checks.fail(str(path), wanted, got, error=checks.DataError)
