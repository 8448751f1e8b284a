"""A model in files: one backbone, and adapters that give it global attention.

*Backbone*: encoder, frame blocks, norms, MLPs and LayerScales of the global blocks, tokens,
heads. *Adapter*: ``aggregator.global_blocks.N.attn.*``, one file per backend; softmax is an
adapter like the others. An adapter carries the fingerprint of the backbone it was fitted to and
loads with no other.

The fingerprint is the SHA-256 over the backbone's tensors in the order of their names (by code
point); each gives its name in UTF-8, a zero byte, its sizes in decimal joined by commas, a zero
byte, and its values in row-major order as little-endian bfloat16 (rounded to nearest even).
Values are those that the loaded model has, so int8 storage counts as it is multiplied out, and
how the backbone is divided into files does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vggt3 import checks
from vggt3.attention.registry import LayerSpec, plan_layers
from vggt3.model import names
from vggt3.model.config import EncoderConfig, ModelConfig
from vggt3.model.vggt3 import VGGT3
from vggt3.model.weight_files import (
    Header,
    StoredLayer,
    digest,
    read_header,
    read_tensors,
    refuse,
)

DRAWS = ("uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_")
START_TOLERANCE = 1e-3
"""Another random stream moves a start's sum by about √(sum of squares); rounding by far less."""


@dataclass(frozen=True)
class Adapter:
    """An adapter file, read."""

    path: Path
    header: Header
    tensors: Mapping[str, Tensor]

    def of_layer(self, layer: int) -> dict[str, Tensor]:
        """The tensors of one global layer, under the names its backend gives them."""
        prefix = attention_prefix(layer)
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class LayerSource:
    """What a global layer is built of."""

    spec: LayerSpec
    """Backend and options, which may differ from the stored ones where no tensor changes."""
    adapter: Adapter
    """Where its tensors are."""


def attention_prefix(layer: int) -> str:
    """What the names of a global layer's attention begin with."""
    return f"aggregator.global_blocks.{layer}.attn."


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a backbone's tensors (an adapter's among them are passed over)."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        if names.is_adapter(name):
            continue
        values = tensors[name].detach().to("cpu", torch.bfloat16).contiguous()
        sizes = ",".join(map(str, values.shape))
        found.update(f"{name}\0{sizes}\0".encode())
        found.update(values.reshape(-1).view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def random_model(
    config: ModelConfig, attention: str, options: Mapping[str, Any], seed: int
) -> VGGT3:
    """A freshly initialised model, the same for the same seed.

    Raises:
        UsageError: an unknown backend or option.
    """
    specs = plan_layers(attention, options, config.layers)
    with own_randomness(seed):
        return VGGT3(config, specs).eval()


@contextmanager
def own_randomness(seed: int = 0) -> Iterator[None]:
    """The CPU's random numbers from a seed; the caller's go on afterwards as if unused."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def fixed_buffers(attn: nn.Module) -> dict[str, Tensor]:
    """The buffers that belong in files."""
    stored = attn.state_dict()
    return {name: t for name, t in attn.named_buffers() if name in stored}


def sums(buffers: Mapping[str, Tensor]) -> tuple[float, float]:
    """Sum and sum of squares of all values."""
    flat = [buffers[name].reshape(-1) for name in sorted(buffers)]
    squares = sum(float(torch.linalg.vector_norm(t, dtype=torch.float64)) ** 2 for t in flat)
    return sum(float(t.sum(dtype=torch.float64)) for t in flat), squares


def load_encoder(path: Path) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The sizes and the tensors ``encoder.*`` of an encoder file; int8 comes as fp32.

    Raises:
        DataError: no such file, a damaged one, or one of another kind.
    """
    header = read_header(path)
    if not isinstance(header.config, EncoderConfig):
        refuse(path, "be an encoder file", f"a file of kind {header.kind}")
    tensors = read_tensors(path)
    odd = [name for name in tensors if not name.startswith("encoder.")]
    if odd:
        refuse(path, "hold an encoder only", odd[0])
    return header.config, tensors


def read_backbone(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """A backbone's header and tensors, its parts included.

    Raises:
        DataError: a file that is missing, damaged, of another kind, or not the part that the
            backbone was saved with.
    """
    header = read_header(path)
    if header.kind != "backbone":
        refuse(path, "be a backbone", f"a file of kind {header.kind}")
    tensors = read_tensors(path)
    for part in header.parts:
        beside = path.parent / part.file
        if not beside.is_file():
            refuse(beside, f"lie beside {path.name}, whose part it is", "no such file")
        found = digest(beside)
        if found != part.sha256:
            refuse(beside, f"be the part that {path.name} was saved with", f"SHA-256 {found}")
        config, more = load_encoder(beside)
        if config != header.model.encoder or more.keys() & tensors.keys():
            refuse(beside, f"be the encoder of {path.name}", asdict(config))
        tensors |= more
    return header, tensors


def read_adapter(path: Path) -> Adapter:
    """An adapter file whose backends are known here and take the options it has.

    Raises:
        DataError: a file that is missing, damaged or of another kind; a backend that is not
            installed.
    """
    header = read_header(path)
    if header.kind != "adapter":
        refuse(path, "be an adapter", f"a file of kind {header.kind}")
    config = header.model
    try:
        for spec in dict.fromkeys(layer.spec for layer in header.layers):
            plan_layers(spec.name, dict(spec.options), 1)
            with own_randomness(), _NoDraws():
                spec.build(config.width, config.heads, 0)
    except checks.UsageError as error:
        raise checks.DataError(f"{path}: {error}") from error
    tensors = read_tensors(path)
    odd = [k for k in tensors if not (names.is_adapter(k) and names.layer_of(k) < config.layers)]
    if odd:
        refuse(path, f"hold the attention of {config.layers} layers only", odd[0])
    return Adapter(path, header, tensors)


def load_model(
    backbone: Path,
    adapter: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VGGT3:
    """A backbone and an adapter as a model in evaluation mode.

    Args:
        backbone: the main file; its parts lie beside it.
        adapter: fitted to this backbone.
        device: where the model goes.
        dtype: of the parameters; fixed buffers are at least fp32.

    Raises:
        DataError: a file that cannot be used, or an adapter for another backbone.
    """
    read = read_adapter(adapter)
    sources = [LayerSource(layer.spec, read) for layer in read.header.layers]
    return compose(backbone, sources, device, dtype)


def compose(
    backbone: Path,
    layers: Sequence[LayerSource],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VGGT3:
    """A backbone with each global layer's attention from an adapter; see :func:`load_model`.

    Raises:
        DataError: an adapter for another backbone; tensors that are missing, unexpected or of
            another shape.
    """
    header = read_header(backbone)
    for adapter in {id(layer.adapter): layer.adapter for layer in layers}.values():
        check_belongs(adapter.path, adapter.header, backbone, header)
    header, tensors = read_backbone(backbone)
    model = unfilled(header.model, [layer.spec for layer in layers])
    hold_tensors(backbone, backbone_shapes(model), names.shapes(tensors))
    # Widened there, not here: a GPU does it at once, and half of the bytes travel.
    placed = {k: t.to(device, copy=True).to(dtype) for k, t in tensors.items()}
    model.load_state_dict(placed, strict=False, assign=True)
    for layer, source in enumerate(layers):
        fill_layer(model, layer, source, device, dtype)
    return model.eval()


class _NoDraws(TorchFunctionMode):
    """Leave parameters as they were allocated; buffers are drawn, since they may stay."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        return func(*args, **kwargs)


def unfilled(config: ModelConfig, specs: Sequence[LayerSpec]) -> VGGT3:
    """A model whose parameters were allocated and not written (their memory costs nothing yet).

    Not on the meta device: the first sum or product there makes torch load its compiler, which
    takes longer than all the rest of loading.
    """
    with own_randomness(), _NoDraws():
        return VGGT3(config, tuple(specs))


def backbone_shapes(model: VGGT3) -> names.Shapes:
    """Name and shape of each tensor that belongs in a backbone's files."""
    kept = {k: t for k, t in model.state_dict().items() if not names.is_adapter(k)}
    return names.shapes(kept)


def check_belongs(adapter: Path, header: Header, backbone: Path, other: Header) -> None:
    """Hold an adapter to the backbone it was fitted to.

    Raises:
        DataError: the fingerprints differ (both are named).
    """
    if header.fingerprint != other.fingerprint:
        refuse(
            adapter,
            f"be an adapter for {backbone.name} (fingerprint {other.fingerprint[:16]}…)",
            f"one for a backbone of fingerprint {header.fingerprint[:16]}…",
        )
    if header.config != other.config:
        refuse(adapter, f"have the sizes of {backbone.name}", header.config)


def hold_tensors(path: Path, expected: names.Shapes, found: names.Shapes) -> None:
    """Hold a file's tensors to the names and shapes that a model has.

    Raises:
        DataError: what is missing, unexpected or of another shape.
    """
    told = names.differences(expected, found)
    if told:
        refuse(path, "hold the tensors of a model of its sizes", told)


def fill_layer(
    model: VGGT3,
    layer: int,
    source: LayerSource,
    device: torch.device | str,
    dtype: torch.dtype,
) -> None:
    """Give an unfilled layer its tensors; what is not stored it drew when it was built."""
    block, path = model.aggregator.block(layer), source.adapter.path
    stored, known = source.adapter.of_layer(layer), source.adapter.header.layers[layer]
    fixed = fixed_buffers(block.attn)
    expected = names.shapes(block.attn.state_dict())
    drawn = fixed if known.start is not None else {}
    kept = {k: s for k, s in expected.items() if k not in drawn}
    prefix = attention_prefix(layer)
    hold_tensors(
        path,
        {prefix + k: s for k, s in kept.items()},
        {prefix + k: s for k, s in names.shapes(stored).items()},
    )
    if drawn:
        _check_start(path, layer, known, sums(drawn))
    wide = torch.promote_types(dtype, torch.float32)
    placed = {
        k: t.to(device, wide if k in fixed else dtype, copy=True)
        for k, t in {**drawn, **stored}.items()
    }
    block.attn.load_state_dict(placed, strict=False, assign=True)
    block.attn.to(device)


def _check_start(path: Path, layer: int, known: StoredLayer, found: tuple[float, float]) -> None:
    """The random numbers must be those of the machine that trained the adapter."""
    assert known.start is not None
    total, squares = known.start
    if abs(found[0] - total) > START_TOLERANCE * max(squares, 0.0) ** 0.5:
        refuse(
            path,
            f"draw the start of layer {layer} whose sum is {total:.6g}",
            f"{found[0]:.6g}: this torch draws other random numbers",
        )
