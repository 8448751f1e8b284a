"""Checkpoints: what of a fit is kept, and what is asked of one before a fit goes on from it.

A checkpoint is data. It is read by torch's ``weights_only`` loader, names no class, and says under
``vggt3`` what it belongs to; settings always come from the command line.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.attention.registry import LayerSpec
from vggt3.model.choice import ModelChoice
from vggt3.model.vggt3 import VGGT3
from vggt3.training.freezing import learns

KEY = "vggt3"
FORMAT = 1


@dataclass(frozen=True)
class Facts:
    """What a checkpoint belongs to."""

    layers: tuple[LayerSpec, ...]
    """Each global layer's backend and options."""
    train: str
    """The part that learns, and so is in the checkpoint."""
    frozen: str
    """Fingerprint of what does not learn, and so is not."""
    scenes: str
    """The seed and the recipes of the scenes seen."""
    method: str = "adamw"
    """What moved the weights."""
    spread: bool = False
    """Whether the optimizer's sums were spread over processes: they are then numbered anew."""
    step: int = 0
    """Steps that were done, where a checkpoint was read."""

    def to_data(self) -> dict[str, str | int]:
        """Plain data for the checkpoint."""
        layers = [[spec.name, dict(spec.options)] for spec in self.layers]
        facts = {name: value for name, value in asdict(self).items() if name != "step"}
        return {**facts, "layers": json.dumps(layers), "format": FORMAT}

    @property
    def backends(self) -> str:
        """The backends' names."""
        return " and ".join(dict.fromkeys(spec.name for spec in self.layers))


def fingerprint(model: VGGT3, part: str) -> str:
    """SHA-256 of the tensors that stay as they are while ``part`` learns, as bf16."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not learns(name, part):
            found.update(f"{name} {list(tensor.shape)}".encode())
            rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            found.update(rounded.reshape(-1).view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def read(path: Path) -> Facts:
    """What a checkpoint says of itself.

    Raises:
        DataError: no checkpoint of ``vggt3 fit``, a damaged one, or one that names things to
            import.
    """
    name = f"--ckpt_path {path}"
    checks.require(path.is_file(), name, "be a file", "none", error=checks.DataError)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = "GLOBAL" in str(error) or "nsupported" in str(error)
        told = "one that names things to import" if refused else "a damaged one"
        checks.fail(name, "be a checkpoint of data only", told, error=checks.DataError)
    except (RuntimeError, EOFError, KeyError, ValueError):
        # What the library says of it is about its own insides.
        told = "a damaged or incomplete file, or one of another kind"
        checks.fail(name, "be a checkpoint", told, error=checks.DataError)
    stored = stored if isinstance(stored, Mapping) else {}
    hyperparameters = stored.get("hyper_parameters")
    if hyperparameters:
        classes = [v for k, v in dict(hyperparameters).items() if "class_path" in str(k)]
        told = f"one whose hyperparameters name {classes[0]}" if classes else "hyperparameters"
        checks.fail(name, "be a checkpoint that names no class", told, error=checks.DataError)
    step = stored.get("global_step")
    return replace(_facts(name, stored.get(KEY)), step=step if isinstance(step, int) else 0)


def _facts(name: str, data: Any) -> Facts:
    try:
        checks.require(data["format"] == FORMAT, name, f"be of format {FORMAT}", data["format"])
        specs = [LayerSpec.of(str(n), options) for n, options in json.loads(data["layers"])]
        moves = {k: data[k] for k in ("method", "spread") if k in data}
        return Facts(tuple(specs), data["train"], data["frozen"], data["scenes"], **moves)
    except checks.InputError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError):
        wanted = "be a checkpoint that vggt3 fit wrote"
        checks.fail(name, wanted, "another file", error=checks.DataError)


def continued(choice: ModelChoice, facts: Facts) -> ModelChoice:
    """The choice that goes on from a checkpoint: what it leaves open is the checkpoint's.

    Raises:
        UsageError: ``--attention`` names another backend than the checkpoint's.
    """
    if choice.attention is None and not choice.attention_options and choice.adapter is None:
        options: dict[str, Any] = {}
        for spec in facts.layers:
            options |= dict(spec.options)
        names = [spec.name for spec in facts.layers]
        if len(set(names)) > 1:
            options["schedule"] = ",".join(f"{n}:{name}" for n, name in enumerate(names))
        return ModelChoice(choice.weights, None, names[0], options, choice.preset, choice.seed)
    return choice


def check_continues(path: Path, facts: Facts, ours: Facts) -> str | None:
    """Hold a checkpoint to the fit that goes on from it; a note where it can, but differently.

    Raises:
        UsageError: another backend, options that differ, or another part that learns.
        DataError: it belongs to another backbone.
    """
    name = f"--ckpt_path {path}"
    if facts.backends != ours.backends:
        checks.fail(name, f"be of {ours.backends}, as --attention says", f"one of {facts.backends}")
    for layer, (theirs, mine) in enumerate(zip(facts.layers, ours.layers, strict=False)):
        wanted = f"have the options {dict(mine.options)} in layer {layer} as --attention says"
        checks.require(theirs == mine, name, wanted, f"{theirs.name} {dict(theirs.options)}")
    checks.require(facts.train == ours.train, name, f"have learned {ours.train}", facts.train)
    if facts.frozen != ours.frozen:
        checks.fail(
            name,
            f"belong to this backbone (frozen tensors {ours.frozen[:16]}…)",
            f"one that belongs to {facts.frozen[:16]}…",
            error=checks.DataError,
        )
    if facts.scenes != ours.scenes:
        return f"the checkpoint saw {facts.scenes}; from here on it is {ours.scenes}"
    return None


def check_moves(path: Path, facts: Facts, method: str, spread: bool) -> None:
    """Hold a checkpoint's optimizer to the one that goes on from it.

    Raises:
        UsageError: the sums are another optimizer's, or those of whole tensors for spread ones.
    """
    name = f"--ckpt_path {path}"
    wanted = f"have moved by {method}, as --optimizer.method says"
    checks.require(facts.method == method, name, wanted, facts.method)
    wanted = "come from a fit with ModelParallelStrategy, as this one is"
    checks.require(facts.spread or not spread, name, wanted, "one without")


def kept(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Of a LightningModule's tensors, those of the model's part that learns."""
    return {
        name: tensor
        for name, tensor in state.items()
        if name.startswith("model.") and learns(name.removeprefix("model."), part)
    }
