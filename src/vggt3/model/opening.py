"""From what a user names to a model: where backbones and adapters are looked for.

A backbone is one ``STEM.safetensors``; the adapters beside it are ``STEM.NAME.safetensors``. Those
that ship lie in ``vggt3/weights``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.attention.base import Backend
from vggt3.attention.registry import (
    DEFAULT,
    LayerSpec,
    all_options,
    options_of,
    plan_layers,
    runs_of,
    table,
)
from vggt3.model.choice import ModelChoice
from vggt3.model.config import ModelConfig, preset
from vggt3.model.vggt3 import VGGT3
from vggt3.model.weight_files import Header, read_header, refuse
from vggt3.model.weights import (
    Adapter,
    LayerSource,
    check_belongs,
    compose,
    fixed_buffers,
    load_encoder,
    own_randomness,
    random_model,
    read_adapter,
)

SHIPPED = Path(__file__).resolve().parent.parent / "weights"
DEFAULT_BACKBONE = "small"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class LoadedModel:
    """A model, and what to say of it."""

    model: VGGT3
    """In evaluation mode."""
    description: str
    """One line: sizes, files, backends."""
    trained: bool
    """False where some weights are random."""
    fingerprint: str | None = None
    """Of the backbone; None where it is random."""


def shipped_backbones(folder: Path = SHIPPED) -> dict[str, Path]:
    """The backbones that ship, by name."""
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}")) if "." not in path.stem}


def encoder_tensors(name: str = DEFAULT_BACKBONE) -> dict[str, Tensor]:
    """The pretrained encoder that ships for a preset, as ``encoder.*`` (fp32).

    Raises:
        DataError: no encoder ships under that name, or its file is damaged.
    """
    config, tensors = load_encoder(SHIPPED / f"{name}.encoder{SUFFIX}")
    checks.require(
        config == preset(name).encoder,
        f"the shipped encoder of {name}",
        "have the preset's sizes",
        config,
        error=checks.DataError,
    )
    return tensors


def find_backbone(weights: str | None) -> Path:
    """The file behind ``--weights``: a file, a folder with one backbone, or a name that ships.

    Raises:
        UsageError: an unknown name, or none given while none ships.
        DataError: a folder without exactly one backbone.
    """
    ships = shipped_backbones()
    if weights is None:
        if DEFAULT_BACKBONE in ships:
            return ships[DEFAULT_BACKBONE]
        checks.fail(
            "--weights",
            "name a backbone (or --preset tiny for random weights), since this copy of vggt3 "
            f"ships no '{DEFAULT_BACKBONE}'",
            f"none (it ships: {', '.join(ships) or 'nothing'})",
        )
    path = Path(weights)
    if path.is_dir():
        held = [p for p in sorted(path.glob(f"*{SUFFIX}")) if _kind(p) == "backbone"]
        if len(held) != 1:
            listed = ", ".join(p.name for p in held) or "none"
            refuse(path, "hold one backbone (else name the file)", listed)
        return held[0]
    if path.exists() or path.suffix == SUFFIX or len(path.parts) > 1:
        return path
    if not ships:
        checks.fail("--weights", "name a file, since this copy ships no weights", f"'{weights}'")
    return ships[checks.choose("--weights", weights, ships)]


def _kind(path: Path) -> str:
    try:
        return read_header(path).kind
    except checks.DataError:
        return "none of ours"


def adapters_of(backbone: Path, header: Header) -> dict[str, Path]:
    """Adapters by name: those beside a backbone, then those that ship for its fingerprint."""
    found = {}
    for path in sorted(SHIPPED.glob(f"*.*{SUFFIX}")):
        if _kind(path) == "adapter" and read_header(path).fingerprint == header.fingerprint:
            found[path.stem.partition(".")[2]] = path
    for path in sorted(backbone.parent.glob(f"{_escaped(backbone.stem)}.*{SUFFIX}")):
        if _kind(path) == "adapter":
            found[path.stem.removeprefix(f"{backbone.stem}.")] = path
    return found


def default_backend(backbone: Path, header: Header) -> str:
    """What is used where nobody names a backend: the default one if this backbone has it, else
    the softmax that it was trained with."""
    known = adapters_of(backbone, header)
    return "softmax" if DEFAULT not in known and "softmax" in known else DEFAULT


def _escaped(stem: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)


def find_adapter(name: str, backbone: Path, header: Header, kind: str = "--adapter") -> Path:
    """The file behind an adapter's name (or path), held to be this backbone's.

    Raises:
        UsageError: an unknown name (lists the known ones and the nearest).
        DataError: an adapter for another backbone, or a damaged file.
    """
    path = Path(name)
    if not (path.is_file() or path.suffix == SUFFIX or len(path.parts) > 1):
        known = adapters_of(backbone, header)
        if not known:
            checks.fail(kind, f"name an adapter of {backbone}, which has none", f"'{name}'")
        if name in table() and name not in known:
            has = f"{backbone.name} has {', '.join(known)}"
            told = f"name an adapter that is there ({has}; vggt3 fit --attention {name} makes one)"
            checks.fail(kind, told, f"'{name}'")
        path = known[checks.choose(kind, name, known)]
    check_belongs(path, read_header(path), backbone, header)
    return path


def open_model(
    choice: ModelChoice,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LoadedModel:
    """The model that a user means.

    Options given override those stored in the adapter where they leave its tensors alone
    (``sweeps``, ``kernel``, ``max_views``…).

    Raises:
        UsageError: an unknown name or option, an option that would change tensors, a backend
            that the adapter does not hold.
        DataError: a file that cannot be used, an adapter for another backbone.
    """
    if choice.preset is not None:
        return _random(choice, device, dtype)
    backbone = find_backbone(choice.weights)
    header = read_header(backbone)
    sources = _sources(choice, backbone, header)
    model = compose(backbone, sources, device, dtype)
    files = dict.fromkeys(source.adapter.path.name for source in sources)
    told = f"{header.model.preset} ({backbone.name} with {', '.join(files)}): {backends(model)}"
    return LoadedModel(model, told, True, header.fingerprint)


def start_model(
    choice: ModelChoice,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    scratch: bool = False,
) -> LoadedModel:
    """The model that a fit begins with: a backbone and new attention as close to softmax's as
    it can be.

    Softmax layers of a schedule get the softmax adapter's tensors; every other backend starts
    from its qkv and proj (:meth:`Backend.start_from`), or with ``scratch`` every layer from random
    weights. Where ``choice`` names an adapter, that one is continued (:func:`open_model`); with a
    preset all weights are random.

    Raises:
        UsageError: as :func:`open_model`; no softmax adapter to start from.
        DataError: as :func:`open_model`.
    """
    both = scratch and choice.adapter is not None
    checks.require(not both, "--start scratch", "stand without --adapter", choice.adapter)
    if choice.preset is not None or choice.adapter is not None:
        return open_model(choice, device, dtype)
    backbone = find_backbone(choice.weights)
    header = read_header(backbone)
    source = read_adapter(find_adapter("softmax", backbone, header))
    stored = [layer.spec for layer in source.header.layers]
    model = compose(backbone, [LayerSource(spec, source) for spec in stored], device, dtype)
    specs = []
    wanted = plan_layers(choice.attention or DEFAULT, choice.attention_options, header.model.layers)
    for layer, spec in enumerate(wanted):
        same = spec.name == stored[layer].name and not scratch
        given = dict(spec.options)
        specs.append(overridden(source.path, source.header, layer, given) if same else spec)
        attn = _drawn(specs[-1], header.model, layer, choice.seed)
        if same:  # what is missing was drawn; compose held it
            attn.load_state_dict(source.of_layer(layer), strict=False)
        elif not scratch:
            attn.start_from(source.of_layer(layer))
        for parameter in attn.parameters():
            parameter.data = parameter.data.to(dtype)
        model.aggregator.block(layer).attn = attn.to(device)
    model.aggregator.specs = tuple(specs)
    origin = "random weights" if scratch else source.path.name
    told = f"{header.model.preset} ({backbone.name}), new {backends(model)} from {origin}"
    return LoadedModel(model.eval(), told, True, header.fingerprint)


def _drawn(spec: LayerSpec, config: ModelConfig, layer: int, seed: int) -> Backend:
    """A new layer with random weights of its own seed."""
    with own_randomness(seed * 1009 + layer):
        return spec.build(config.width, config.heads, layer)


def _random(choice: ModelChoice, device: torch.device | str, dtype: torch.dtype) -> LoadedModel:
    config = preset(str(choice.preset))
    name = choice.attention or DEFAULT
    model = random_model(config, name, choice.attention_options, choice.seed)
    told = f"{config.preset} with random weights (seed {choice.seed}): {backends(model)}"
    return LoadedModel(model.to(device, dtype), told, False)


def backends(model: VGGT3) -> str:
    """The backends of a model's layers in words: ``ttt_shortconv``, or ``0-3 softmax, …``."""
    runs = runs_of(model.specs)
    if len(runs) == 1:
        return runs[0][2]
    return ", ".join(f"{first}-{last} {name}" for first, last, name in runs)


def _sources(choice: ModelChoice, backbone: Path, header: Header) -> list[LayerSource]:
    """For each layer, the adapter that holds its backend, and its options."""
    layers, given = header.model.layers, choice.attention_options
    adapters = [
        read_adapter(find_adapter(name, backbone, header)) for name in _listed(choice.adapter)
    ]
    if adapters and choice.attention is None and "schedule" not in given:
        names = [layer.spec.name for layer in adapters[0].header.layers]
        known = {name: options_of(name) for name in dict.fromkeys(names)}
        for option in given:
            every = [k for options in known.values() for k in options]
            checks.choose(f"option of {' and '.join(known)}", option, every)
        asked = [{k: v for k, v in given.items() if k in known[name]} for name in names]
    else:
        specs = plan_layers(choice.attention or default_backend(backbone, header), given, layers)
        names = [spec.name for spec in specs]
        asked = [dict(spec.options) for spec in specs]
    if not adapters:
        adapters = [
            read_adapter(find_adapter(name, backbone, header, "--attention"))
            for name in dict.fromkeys(names)
        ]
    sources = []
    for layer, name in enumerate(names):
        adapter = _holding(name, layer, adapters)
        spec = overridden(adapter.path, adapter.header, layer, asked[layer])
        sources.append(LayerSource(spec, adapter))
    return sources


def _listed(adapter: str | None) -> list[str]:
    if adapter is None or Path(adapter).exists():
        return [] if adapter is None else [adapter]
    return [name.strip() for name in adapter.split(",")]


def _holding(name: str, layer: int, adapters: Sequence[Adapter]) -> Adapter:
    held = [adapter.header.layers[layer].spec.name for adapter in adapters]
    for adapter, found in zip(adapters, held, strict=True):
        if found == name:
            return adapter
    files = ", ".join(adapter.path.name for adapter in adapters)
    checks.fail(f"--adapter {files}", f"hold {name} in layer {layer}", " and ".join(held))


def overridden(path: Path, header: Header, layer: int, given: Mapping[str, Any]) -> LayerSpec:
    """The stored spec of an adapter's layer with other options, none of which may change its
    tensors.

    Raises:
        UsageError: an option that the backend does not have, or that its tensors depend on.
    """
    stored, config = header.layers[layer].spec, header.model
    old = dict(stored.options)
    changed = {k: v for k, v in given.items() if k not in old or old[k] != v}
    for option, value in changed.items():
        other = with_options(stored, {option: value})
        if not same_tensors(stored, other, config.width, config.heads):
            made = all_options(stored)[option]
            checks.fail(
                f"--attention.{option}",
                f"be what {path.name} was made with, {made} (its tensors depend on it)",
                value,
            )
    return with_options(stored, changed)


def with_options(spec: LayerSpec, given: Mapping[str, Any]) -> LayerSpec:
    """A spec with some options replaced, their values checked."""
    merged = {**dict(spec.options), **given}
    return plan_layers(spec.name, merged, 1)[0]


@functools.cache
def same_tensors(a: LayerSpec, b: LayerSpec, width: int, heads: int) -> bool:
    """Whether two specs build layers of equal tensors, which are drawn or learned alike."""
    built = []
    for spec in (a, b):
        with own_randomness():
            built.append(spec.build(width, heads, 0))
    first, second = (layer.state_dict() for layer in built)
    fixed, other = (fixed_buffers(layer).keys() for layer in built)
    alike = first.keys() == second.keys() and fixed == other
    return alike and all(torch.equal(t, second[k]) for k, t in first.items())
