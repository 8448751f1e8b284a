"""What a weight file holds, in words, and whether it is what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.attention.registry import plan_layers
from vggt3.model import names, quantisation
from vggt3.model.weight_files import Header, content_of, read_header, read_stored, refuse
from vggt3.model.weights import (
    LayerSource,
    backbone_shapes,
    check_belongs,
    fill_layer,
    fingerprint,
    hold_tensors,
    load_encoder,
    read_adapter,
    read_backbone,
    unfilled,
)


class Group(NamedTuple):
    """Tensors that belong together."""

    part: str
    tensors: int
    values: int
    stored_bytes: int


def groups(tensors: Mapping[str, Tensor]) -> list[Group]:
    """Tensors by the part of the model they belong to, in alphabetical order."""
    found: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        row = found.setdefault(_part(name), [0, 0, 0])
        if not name.endswith(quantisation.SCALE):
            row[0] += 1
            row[1] += tensor.numel()
        row[2] += tensor.numel() * tensor.element_size()
    return [Group(part, *row) for part, row in sorted(found.items())]


def _part(name: str) -> str:
    if names.is_adapter(name):
        return "global attention"
    if name.startswith("aggregator.frame_blocks."):
        return "frame blocks"
    if name.startswith("aggregator.global_blocks."):
        return "global blocks without attention"
    if name.startswith("aggregator."):
        return "tokens and embedding"
    return name.partition(".")[0].replace("_", " ")


def describe(path: Path) -> tuple[list[tuple[str, str]], list[Group]]:
    """A file's header as rows of name and text, and its groups of tensors.

    Raises:
        DataError: no such file, a damaged one, or not one of ours.
    """
    header = read_header(path)
    rows = [("kind", header.kind), ("fingerprint", header.fingerprint)]
    sizes = asdict(header.config)
    rows.append(("config", ", ".join(f"{k} {v}" for k, v in sizes.items() if k != "encoder")))
    if "encoder" in sizes:
        rows.append(("encoder", ", ".join(f"{k} {v}" for k, v in sizes["encoder"].items())))
    rows += [("layers " + where, what) for where, what in _layers(header)]
    rows += [("part", f"{part.file} (SHA-256 {part.sha256})") for part in header.parts]
    rows += [(f"record: {k}", str(v)) for k, v in header.record.items()]
    return rows, groups(read_stored(path))


def _layers(header: Header) -> list[tuple[str, str]]:
    """Runs of equal layers: where, and the backend with its options."""
    found: list[tuple[int, int, str]] = []
    for n, layer in enumerate(header.layers):
        options = ", ".join(f"{k} {v}" for k, v in layer.spec.options)
        drawn = "" if layer.start is None else "; start drawn from its seed"
        text = layer.spec.name + (f" ({options})" if options else "") + drawn
        if found and found[-1][2] == text:
            found[-1] = (found[-1][0], n, text)
        else:
            found.append((n, n, text))
    return [(f"{a}-{b}" if b > a else f"{a}", text) for a, b, text in found]


def check_file(path: Path) -> str:
    """Hold a file to its header: tensors, contents, fingerprint, parts; one line about it.

    An adapter is also held to the backbone beside it, if there is one.

    Raises:
        DataError: what does not fit.
    """
    header = read_header(path)
    if content_of(read_stored(path)) != header.content:
        refuse(path, f"have contents {header.content[:16]}… as written", "others: it is damaged")
    if header.kind == "adapter":
        return _check_adapter(path)
    if header.kind == "encoder":
        _, tensors = load_encoder(path)
    else:
        _, tensors = read_backbone(path)
        model = unfilled(header.model, plan_layers("softmax", {}, header.model.layers))
        hold_tensors(path, backbone_shapes(model), names.shapes(tensors))
    found = fingerprint(tensors)
    if found != header.fingerprint:
        refuse(path, f"have fingerprint {header.fingerprint}", found)
    with_parts = f" with {len(header.parts)} further file" if header.parts else ""
    return f"{header.kind}{with_parts}, fingerprint {found[:16]}…"


def _check_adapter(path: Path) -> str:
    adapter = read_adapter(path)
    model = unfilled(adapter.header.model, [x.spec for x in adapter.header.layers])
    for layer, stored in enumerate(adapter.header.layers):
        fill_layer(model, layer, LayerSource(stored.spec, adapter), "cpu", torch.float32)
    backbone = path.with_name(re.sub(r"\.[^.]+$", "", path.stem) + path.suffix)
    beside = ""
    if backbone != path and backbone.is_file():
        try:
            other = read_header(backbone)
        except checks.DataError:
            other = None
        if other is not None and other.kind == "backbone":
            check_belongs(path, adapter.header, backbone, other)
            beside = f", belongs to {backbone.name}"
    return f"adapter for {adapter.header.fingerprint[:16]}…{beside}"
