"""Trained weights in small files: the trunk (all but the encoder) in pieces, and the adapter.

What a run leaves behind and the next one starts from, in bf16, when one file may hold only a few
megabytes. The encoder is a file of its own; where it learns it comes in pieces too, as int8, the
way it ships. Fixed buffers are drawn again by the layers that have them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vggt3 import checks
from vggt3.attention.registry import KERNEL_OPTIONS
from vggt3.attention.ttt_mlp import START
from vggt3.model import quantisation, weight_files, weights, weights_saving
from vggt3.model.names import is_adapter
from vggt3.model.vggt3 import VGGT3
from vggt3.training import freezing

PIECE = 15 << 20
"""Most bytes of a file."""
KINDS = ("trunk", "encoder")
"""What comes in pieces."""
SAVED = "saved"
"""Header key: equal in files that were written together. Each file is whole or not there, but a
disk that fills up between two of them leaves files of two times."""
LATER = ("start", "gate", "conv_q", "conv_k")
"""Parts of a layer that leave its answer as it is until they have learned: an adapter may get them
later. A start that is to learn begins as drawn."""
ENCODER = "encoder"
"""Header key: fingerprint of the encoder that the trunk stands on."""


def save_parts(model: VGGT3, folder: Path, facts: Mapping[str, str]) -> list[Path]:
    """Write ``trunk-1.safetensors``, … and ``adapter.safetensors`` into ``folder``, and
    ``encoder-1.safetensors``, … where the encoder learns.

    ``facts`` go into each file's header beside the preset and the backends. A file is complete
    or not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backends = [[spec.name, dict(spec.options)] for spec in model.specs]
    header = {"preset": model.config.preset, "backends": json.dumps(backends), **facts}
    header[SAVED] = os.urandom(8).hex()
    encoder = _encoder(model)
    tensors = {
        name: _stored(tensor)
        for name, tensor in sorted(model.named_parameters())
        if name not in encoder
    }
    adapter = {name: tensor for name, tensor in tensors.items() if is_adapter(name)}
    trunk = {name: tensor for name, tensor in tensors.items() if name not in adapter}
    learned = any(tensor.requires_grad for tensor in encoder.values())
    packed = {name: t.cpu() for name, t in quantisation.pack(encoder if learned else {}).items()}
    header[ENCODER] = weights.fingerprint(quantisation.unpack(packed) if learned else encoder)
    files = {"adapter.safetensors": adapter}
    for kind, content in (("trunk", trunk), ("encoder", packed)):
        for number, piece in enumerate(_pieces(content), 1):
            files[f"{kind}-{number}.safetensors"] = piece
    for name, content in files.items():
        weight_files.put(folder / name, content, header)
    written = [folder / name for name in files]
    for kind in KINDS:
        for stale in set(folder.glob(f"{kind}-*.safetensors")) - set(written):
            stale.unlink()
    return written


def _encoder(model: VGGT3) -> dict[str, nn.Parameter]:
    """The encoder's part of a model, which has no buffers there, by its full names."""
    return {f"encoder.{name}": p for name, p in sorted(model.encoder.named_parameters())}


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.bfloat16, copy=True).contiguous()


def _pieces(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    pieces: list[dict[str, Tensor]] = []
    size = 0
    for name, tensor in tensors.items():
        if not pieces or size + tensor.nbytes > PIECE:
            pieces.append({})
            size = 0
        pieces[-1][name] = tensor
        size += tensor.nbytes
    return pieces


def load_parts(model: VGGT3, folder: Path) -> None:
    """Start from what :func:`save_parts` wrote.

    An adapter of the model's own backends is taken as it is; a softmax adapter is what other
    backends begin from. An encoder that has learned is taken along.

    Raises:
        DataError: no parts there, of another preset, incomplete, not written together, with
            an adapter of another backend, or on another encoder than the model's.
    """
    files = sorted(folder.glob("trunk-*.safetensors"))
    adapter = folder / "adapter.safetensors"
    checks.require(
        bool(files) and adapter.is_file(),
        str(folder),
        "hold trunk-*.safetensors and adapter.safetensors",
        "a folder without them" if folder.is_dir() else "no folder",
        error=checks.DataError,
    )
    learned = sorted(folder.glob("encoder-*.safetensors"))
    tensors, header = _read([*files, *learned, adapter])
    tensors = quantisation.unpack(tensors)
    trunk = {name: tensor for name, tensor in tensors.items() if not is_adapter(name)}
    checks.require(
        header.get("preset") == model.config.preset,
        str(folder),
        f"be of preset {model.config.preset}",
        header.get("preset"),
        error=checks.DataError,
    )
    wanted = {
        name
        for name, _ in model.named_parameters()
        if not is_adapter(name) and (learned or not name.startswith("encoder."))
    }
    _place(model, trunk, wanted, folder)
    checks.require(
        header.get(ENCODER) in (None, weights.fingerprint(_encoder(model))),
        str(folder),
        "stand on the model's encoder, or bring its own (encoder-*.safetensors)",
        "a trunk that was trained on another",
        error=checks.DataError,
    )
    load_adapter(model, adapter)


def load_adapter(model: VGGT3, adapter: Path) -> None:
    """Start from an adapter, whatever backbone it was made for: one that :func:`save_parts` wrote
    or a published one; of the model's own backends as it is, of softmax as what other backends
    begin from. Parts that begin by changing nothing (:data:`LATER`) may be new to the adapter.

    Raises:
        DataError: no adapter there, incomplete, or of another backend.
    """
    known, header = _read([adapter])
    if "backends" in header:
        stored = [name for name, _ in _backends(header, adapter)]
    else:
        published = weights.read_adapter(adapter)
        known = dict(published.tensors)
        stored = [layer.spec.name for layer in published.header.layers]
    backends = [spec.name for spec in model.specs]
    if stored == backends:
        own = {name for name, _ in model.named_parameters() if is_adapter(name)}
        there = {_part(name) for name in known}
        new = {name for name in own if _part(name) in LATER and _part(name) not in there}
        _place(model, known, own - new, adapter)
        return
    checks.require(
        set(stored) == {"softmax"},
        str(adapter),
        f"be an adapter of {' and '.join(dict.fromkeys(backends))}, or of softmax to begin from",
        " and ".join(dict.fromkeys(stored)) or "none",
        error=checks.DataError,
    )
    freezing.start_adapter(model, {name: t.float() for name, t in known.items()})


def options_for(adapter: Path) -> dict[str, Any]:
    """The options of the backend that an adapter of :func:`save_parts` was made with, but for
    its kernels, which every run chooses anew. Sweeps are not: what was trained with two is far off
    with four.

    Raises:
        DataError: its layers are not alike.
    """
    layers = _backends(_read([adapter])[1], adapter)
    told = "have one backend with the same options in every layer"
    alike = bool(layers) and all(layer == layers[0] for layer in layers)
    checks.require(alike, str(adapter), told, layers or "none", error=checks.DataError)
    return {name: value for name, value in layers[0][1].items() if name not in KERNEL_OPTIONS}


def _backends(header: Mapping[str, str], adapter: Path) -> list[tuple[str, dict[str, Any]]]:
    found = json.loads(header.get("backends", "[]"))
    whole = all(isinstance(layer, list) and len(layer) == 2 for layer in found)
    told = "name a backend and its options for every layer in its header"
    checks.require(whole, str(adapter), told, found, error=checks.DataError)
    return [(name, dict(options)) for name, options in found]


def _part(name: str) -> str:
    """What of a layer's attention a tensor belongs to."""
    part = name.partition(".attn.")[2].partition(".")[0]
    return "start" if part in START else part


def load_encoder(model: VGGT3, file: Path) -> None:
    """Fill the encoder from its own file (:mod:`vggt3.model.weights`).

    Raises:
        DataError: no such file, or an encoder of another size.
    """
    config, tensors = weights.load_encoder(file)
    checks.require(
        config == model.config.encoder,
        str(file),
        f"be the encoder of {model.config.preset}",
        config,
        error=checks.DataError,
    )
    model.load_state_dict(tensors, strict=False)


def publish(
    model: VGGT3, encoder: Path, name: str, record: Mapping[str, str] | None = None
) -> None:
    """Write ``NAME.safetensors`` and ``NAME.BACKEND.safetensors`` beside the encoder's file.

    ``model`` is what :func:`load_encoder` and :func:`load_parts` made, ``record`` how it was
    trained. A softmax adapter comes with its backbone, and with the encoder where that is not the
    one that lies there; any other needs that backbone's file, and is stored as int8.

    Raises:
        DataError: an adapter for another backbone than the one that lies there.
    """
    backends = "+".join(dict.fromkeys(spec.name for spec in model.specs))
    main = encoder.parent / f"{name}.safetensors"
    if backends == "softmax":
        _publish_encoder(model, encoder, main, record or {})
        backbone = weights_saving.save_backbone(main, model, encoder=encoder, record=record)
    else:
        backbone = weights.fingerprint(model.state_dict())
        stored = weight_files.read_header(main).fingerprint
        checks.require(
            stored == backbone,
            str(main),
            f"be the backbone of the {backends} adapter",
            f"another one ({stored[:12]}…)",
            error=checks.DataError,
        )
    adapter = encoder.parent / f"{name}.{backends}.safetensors"
    packed = backends != "softmax"
    weights_saving.save_adapter(adapter, model, backbone=backbone, packed=packed, record=record)


def _publish_encoder(model: VGGT3, file: Path, main: Path, record: Mapping[str, str]) -> None:
    """Write the encoder anew if it has learned, unless other backbones than ``main`` have it, and
    give the model what is stored of it; whose it was before stays in its record."""
    own, before = _encoder(model), weight_files.read_header(file)
    if weights.fingerprint(own) != before.fingerprint:
        others = [
            path.name
            for path in sorted(file.parent.glob("*.safetensors"))
            if path != main and file.name in [p.file for p in weight_files.read_header(path).parts]
        ]
        wanted, got = f"be part of {main.name} alone, since it has learned", ", ".join(others)
        checks.require(not others, str(file), wanted, got, error=checks.DataError)
        weights_saving.save_encoder(file, own, model.config.encoder, {**before.record, **record})
        load_encoder(model, file)


def _read(files: Iterable[Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                given = dict(opened.metadata() or {})
                header = header or given
                checks.require(
                    given.get(SAVED) == header.get(SAVED),
                    str(file),
                    "be written together with the other parts",
                    f"{given.get(SAVED)} of {SAVED}, not {header.get(SAVED)}",
                    error=checks.DataError,
                )
                tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            detail = str(error).partition("\n")[0]
            checks.fail(str(file), "be a safetensors file", detail, error=checks.DataError)
    return tensors, header


def _place(model: VGGT3, tensors: Mapping[str, Tensor], wanted: set[str], source: Path) -> None:
    odd = sorted(wanted ^ set(tensors))
    checks.require(
        not odd,
        str(source),
        f"hold the {len(wanted)} tensors of this model and no other",
        f"a difference in {len(odd)}, such as {', '.join(odd[:3])}",
        error=checks.DataError,
    )
    own = model.state_dict()
    for name, tensor in tensors.items():
        checks.require(
            own[name].shape == tensor.shape,
            f"{name} in {source}",
            f"have shape {list(own[name].shape)}",
            list(tensor.shape),
            error=checks.DataError,
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
