"""Weight files that the tests of :mod:`vggt3.model.weights` and its neighbours use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vggt3.model.choice import ModelChoice
from vggt3.model.config import TINY
from vggt3.model.opening import LoadedModel, open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.model.weight_files import read_header, read_stored
from vggt3.model.weights import random_model
from vggt3.model.weights_saving import save_adapter, save_backbone


def write_tiny(made: Path) -> Path:
    """A tiny backbone and three adapters of it."""
    softmax = random_model(TINY, "softmax", {}, 1)
    backbone = made / "tiny.safetensors"
    mark = save_backbone(backbone, softmax, dtype=None, record={"steps": 3})
    save_adapter(made / "tiny.softmax.safetensors", softmax, backbone=mark, dtype=None)
    for name, options in (("ttt_shortconv", {"hidden": 2}), ("linear", {})):
        model = random_model(TINY, name, options, 1)
        save_adapter(made / f"tiny.{name}.safetensors", model, backbone=mark, dtype=None)
    return made


def choose(folder: Path, **given: Any) -> LoadedModel:
    return open_model(ModelChoice(weights=str(folder / "tiny.safetensors"), **given))


def same(found: VGGT3, expected: VGGT3) -> bool:
    a, b = found.state_dict(), expected.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


def edit_header(path: Path, edit: Any) -> None:
    """Rewrite a file's header: ``edit`` changes the data, or gives the text."""
    tensors = read_stored(path)
    data = json.loads(read_header(path).to_json())
    text = edit(data)
    save_file(tensors, path, {"vggt3": text if isinstance(text, str) else json.dumps(data)})


def put(*keys: Any) -> Any:
    *way, last, value = keys

    def edit(data: Any) -> None:
        for key in way:
            data = data[key]
        data[last] = value

    return edit
