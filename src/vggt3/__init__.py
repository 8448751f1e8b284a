"""vggt3: photos in, scene out, at a cost that is linear in the number of photos.

``import vggt3`` is free: each public name loads its module (and torch) when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggt3.checks import DataError as DataError
    from vggt3.checks import InputError as InputError
    from vggt3.checks import PlanError as PlanError
    from vggt3.checks import UsageError as UsageError
    from vggt3.inference import RunOptions as RunOptions
    from vggt3.inference import reconstruct as reconstruct
    from vggt3.inference.extend import extend as extend
    from vggt3.inference.localise import localize as localize
    from vggt3.inference.mapping import map as map
    from vggt3.inference.scene_memory import SceneMemory as SceneMemory
    from vggt3.model.choice import ModelChoice as ModelChoice
    from vggt3.model.opening import open_model as open_model
    from vggt3.types import Cameras as Cameras
    from vggt3.types import DenseView as DenseView
    from vggt3.types import Reconstruction as Reconstruction
    from vggt3.types import ViewGroup as ViewGroup
    from vggt3.types import Views as Views

__version__ = "0.1.0.dev0"

_LAZY = {
    "Cameras": "vggt3.types",
    "DataError": "vggt3.checks",
    "DenseView": "vggt3.types",
    "InputError": "vggt3.checks",
    "ModelChoice": "vggt3.model.choice",
    "PlanError": "vggt3.checks",
    "Reconstruction": "vggt3.types",
    "RunOptions": "vggt3.inference",
    "SceneMemory": "vggt3.inference.scene_memory",
    "UsageError": "vggt3.checks",
    "ViewGroup": "vggt3.types",
    "Views": "vggt3.types",
    "extend": "vggt3.inference.extend",
    "localize": "vggt3.inference.localise",
    "map": "vggt3.inference.mapping",
    "open_model": "vggt3.model.opening",
    "reconstruct": "vggt3.inference",
}
"""Public name → the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vggt3' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
