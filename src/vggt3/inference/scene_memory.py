"""A mapped scene: what its photos left in every layer, and all that is needed to ask it later."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.attention.memory import State
from vggt3.inference.identity import ModelIdentity
from vggt3.inference.recall import Familiarity
from vggt3.io.scene_file import Packed, pack, read_scene_file, write_scene_file
from vggt3.io.staging import NOT_YET, check_place
from vggt3.model.scene import Memory
from vggt3.types import Cameras

Size = tuple[int, int]

CAMERAS = ("camera_from_world", "pinhole", "sizes", "original_sizes")
"""Tensors of the cameras in a file: 80 bytes a view, never halved."""


@dataclass(frozen=True)
class Saved:
    """What a scene became in a file."""

    nbytes: int
    """Of the file."""
    error: float = 0.0
    """Relative L2 error of the worst of its tensors; 0 unless halved."""


@dataclass(frozen=True)
class SceneMemory:
    """A scene that photos can be localised in. Reading it changes nothing, so any number of
    threads may, and any number of scenes may be open."""

    memory: Memory
    """Settled states of every layer; camera tokens [1, V, 2C] of the views that were mapped."""
    cameras: Cameras
    """V cameras at the sizes that the model saw; the world is the first view's camera."""
    names: tuple[str, ...]
    """Of the V photos."""
    original_sizes: tuple[Size, ...]
    """(height, width) of the V photos as read."""
    tokens: int
    """T: tokens written so far."""
    identity: ModelIdentity
    """The model that made the scene; no other can read it."""
    familiarity: Familiarity
    """How well the scene knows its own photos, and photos of elsewhere."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """How it was made: plain data."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """Bytes of the states and the camera tokens."""
        kept = self.memory.camera_tokens
        return self.state_bytes + kept.numel() * kept.element_size()

    @property
    def state_bytes(self) -> int:
        """Bytes of the settled states."""
        return sum(state.nbytes for state in self.memory.states)

    @property
    def bounded(self) -> bool:
        """Whether the states would be as large for any number of views."""
        return all(state.bounded for state in self.memory.states)

    def to(self, device: torch.device | str) -> SceneMemory:
        """The same scene with its memory on ``device``."""
        return replace(self, memory=_moved(self.memory, device))

    def packed(self, half: bool = False) -> Packed:
        """The tensors of the file; ``half`` stores states and camera tokens as float16."""
        tensors = {"camera_tokens": self.memory.camera_tokens[0]}
        for layer, state in enumerate(self.memory.states):
            tensors |= {f"state.{layer}.{name}": t for name, t in state.tensors.items()}
        halved = frozenset(tensors) if half else frozenset()
        for number, plan in enumerate(_distinct(self.memory.plans)):
            tensors |= {f"plan.{number}.{name}": t for name, t in plan.tensors.items()}
        return pack(tensors | _camera_tensors(self.cameras, self.original_sizes), halved)

    def facts(self) -> dict[str, Any]:
        """What the file says beside its tensors."""
        plans = _distinct(self.memory.plans)
        numbers = [None if plan is None else plans.index(plan) for plan in self.memory.plans]
        return {
            "names": list(self.names),
            "tokens": self.tokens,
            "states": [_described(state) for state in self.memory.states],
            "plans": numbers,
            "plan_states": [_described(plan) for plan in plans],
            "model": self.identity.to_data(),
            "familiarity": asdict(self.familiarity),
            "record": dict(self.record),
        }

    def save(
        self, path: str | os.PathLike[str], *, half: bool = False, overwrite: bool = False
    ) -> Saved:
        """Write the scene, whole or not at all.

        Raises:
            UsageError: ``path`` exists and ``overwrite`` does not say that it may go, or it is
                no scene.
            DataError: it cannot be written, or holds values that are not finite.
        """
        place = check_scene_path(path, overwrite)
        packed = self.packed(half)
        free = frozenset(CAMERAS)  # an untrained model may answer a field of view of zero
        size = write_scene_file(place, packed, self.facts(), may_be_infinite=free)
        return Saved(size, _error(self.packed().tensors, packed.unpacked()) if half else 0.0)

    def halved(self) -> SceneMemory:
        """The scene that a file written with ``half`` gives back."""
        return _built(self.packed(half=True).unpacked(), self.facts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SceneMemory:
        """Read a scene, onto the CPU.

        Raises:
            DataError: no scene file, another version's, or one that was cut short or changed.
        """
        place = Path(path).expanduser()
        tensors, facts = read_scene_file(place)
        try:
            return _built(tensors, facts)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            checks.fail(
                str(path), "hold a whole scene", checks.reason(error), error=checks.DataError
            )


def check_scene_path(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """The real path of ``path`` if a scene may be written there, else UsageError."""
    place = Path(os.path.realpath(Path(path).expanduser()))
    name = f"scene file '{path}'"
    checks.require(not place.is_dir(), name, "be a file", "a folder")
    if os.path.lexists(place):
        checks.require(overwrite, name, NOT_YET, "an existing file")
        try:
            read_scene_file(place)
        except checks.DataError as error:
            checks.fail(name, "be an earlier scene to be overwritten", error)
    check_place(place, name)
    return place


def _moved(memory: Memory, device: torch.device | str) -> Memory:
    plans = {id(plan): plan.to(device) for plan in memory.plans if plan is not None}
    return Memory(
        tuple(state.to(device) for state in memory.states),
        memory.camera_tokens.to(device),
        tuple(None if plan is None else plans[id(plan)] for plan in memory.plans),
    )


def _distinct(plans: Iterable[State | None]) -> list[State]:
    """Each survey once: layers of one backend share it."""
    return list({id(plan): plan for plan in plans if plan is not None}.values())


def _described(state: State) -> dict[str, Any]:
    return {
        "tensors": sorted(state.tensors),
        "numbers": dict(state.numbers),
        "bounded": state.bounded,
    }


def _camera_tensors(cameras: Cameras, original_sizes: Sequence[Size]) -> dict[str, Tensor]:
    k = cameras.intrinsics.float()
    pinhole = torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], dim=1)
    return {
        "camera_from_world": cameras.camera_from_world.float(),  # [V, 3, 4]
        "pinhole": pinhole,  # [V, 4] fx, fy, cx, cy
        "sizes": torch.tensor(cameras.sizes, dtype=torch.int32),  # [V, 2]
        "original_sizes": torch.tensor(list(original_sizes), dtype=torch.int32),
    }


def _error(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Relative L2 error of the worst tensor."""
    worst = 0.0
    for name, tensor in before.items():
        if name in CAMERAS or not tensor.is_floating_point():
            continue
        a, b = tensor.double(), after[name].double()
        worst = max(worst, float((a - b).norm() / a.norm().clamp(min=1e-30)))
    return worst


def _built(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> SceneMemory:
    def state(prefix: str, told: Mapping[str, Any]) -> State:
        found = {name: tensors[f"{prefix}.{name}"] for name in told["tensors"]}
        return State(found, dict(told["numbers"]), bool(told["bounded"]))

    states = tuple(state(f"state.{n}", told) for n, told in enumerate(facts["states"]))
    distinct = [state(f"plan.{n}", told) for n, told in enumerate(facts["plan_states"])]
    plans = tuple(None if n is None else distinct[n] for n in facts["plans"])
    sizes = tuple((int(h), int(w)) for h, w in tensors["sizes"].tolist())
    memory = Memory(states, tensors["camera_tokens"][None], plans)
    pinhole = tensors["pinhole"]
    intrinsics = torch.zeros(len(sizes), 3, 3, dtype=pinhole.dtype)
    intrinsics[:, (0, 1, 0, 1), (0, 1, 2, 2)] = pinhole
    intrinsics[:, 2, 2] = 1
    names = tuple(str(name) for name in facts["names"])
    found = SceneMemory(
        memory,
        Cameras(tensors["camera_from_world"], intrinsics, sizes),
        names,
        tuple((int(h), int(w)) for h, w in tensors["original_sizes"].tolist()),
        int(facts["tokens"]),
        ModelIdentity.from_data(facts["model"]),
        Familiarity(**facts["familiarity"]),
        dict(facts["record"]),
    )
    counts = {len(names), len(sizes), memory.camera_tokens.shape[1], len(pinhole)}
    if len(states) != len(found.identity.layers) or (plans and len(plans) != len(states)):
        raise ValueError(f"{len(states)} states of {len(found.identity.layers)} layers")
    if len(counts) != 1:
        raise ValueError(f"{len(names)} names, {memory.camera_tokens.shape[1]} camera tokens")
    return found
