"""How a scene is computed: device, precision, memory; none of it changes what is computed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import torch

from vggt3 import checks

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
CPU_SHARE, GPU_SHARE = 0.7, 0.9
"""Share of a device's whole memory that a plan may use unless told."""
FEATURES = ("raw", "projected", "raw-host", "projected-host", "replay")


@dataclass(frozen=True)
class Wishes:
    """What the caller insists on; None leaves it to the plan."""

    chunk: int | None = None
    """Views worked on at a time."""
    tokens: str | None = None
    """device or host."""
    projections: str | None = None
    """keep or again."""
    features: str | None = None
    """raw, projected, raw-host, projected-host or replay; none where no dense heads run."""


@dataclass(frozen=True)
class RunOptions:
    """Where and how the model runs."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps, …; auto takes an accelerator if there is one."""
    precision: str = "auto"
    """fp32, or bf16 (parameters and products); auto is bf16 on CUDA, else fp32. On CUDA PyTorch
    rounds the operands of fp32 convolutions to TF32, unless told not to (torch.backends.cudnn)."""
    memory: str | int = "auto"
    """Bytes that the plan may use on the device, such as 20G; auto is a fixed share of all.
    Each process's, where several share a scene."""
    chunk: int | None = None
    """Views worked on at a time; the plan chooses if not given. Changes no result."""
    host_memory: str | int = "auto"
    """Bytes of host memory that the plan may use beside a CUDA device's own (page-locked), such
    as 60G or 0; auto is a fixed share of all."""
    tokens: str = "auto"
    """Where the tokens that run through the layers lie: device or host."""
    projections: str = "auto"
    """Queries, keys and values of a layer between write and read: keep, or again (computed)."""
    features: str = "auto"
    """What is held of the layers for the dense heads: raw; projected (a third smaller); either
    with -host behind it (what the device cannot hold goes to host memory); or replay: nothing,
    each chunk reads the settled scene once more."""
    points_from: str = "depth"
    """depth: unproject depth with the camera; head: the point head's own."""

    def __post_init__(self) -> None:
        checks.choose("--precision", self.precision, ("auto", "fp32", "bf16"))
        checks.choose("--points-from", self.points_from, ("depth", "head"))
        checks.require(
            self.chunk is None or self.chunk >= 1, "--chunk", "be at least 1", self.chunk
        )
        checks.choose("--tokens", self.tokens, ("auto", "device", "host"))
        checks.choose("--projections", self.projections, ("auto", "keep", "again"))
        checks.choose("--features", self.features, ("auto", *FEATURES))
        for flag, size in (("--memory", self.memory), ("--host-memory", self.host_memory)):
            if size != "auto":
                parse_bytes(size, flag)

    def resolve_device(self) -> torch.device:
        """The device meant.

        Raises:
            UsageError: a device that does not exist here; says which do.
        """
        present = devices()
        if self.device == "auto":
            return torch.device(present[0])
        try:
            device = torch.device(self.device)
        except RuntimeError:
            checks.fail("--device", f"be one of {', '.join(present)}", f"'{self.device}'")
        listed = ", ".join(present)
        checks.require(
            device.type in present, "--device", f"be present ({listed})", f"'{self.device}'"
        )
        if device.type != "cpu":
            count = torch.get_device_module(device).device_count()
            checks.require((device.index or 0) < count, "--device", f"be one of {count}", device)
        return device

    def resolve_dtype(self, device: torch.device) -> torch.dtype:
        """The type of matrix products on ``device``."""
        if self.precision == "auto":
            return torch.bfloat16 if device.type == "cuda" else torch.float32
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def resolve_memory(self, device: torch.device) -> int:
        """Bytes the plan may use: as stated, or a fixed share of all that the device has.

        Never of what is free right now: the same machine gives the same plan.
        """
        if self.memory != "auto":
            return parse_bytes(self.memory)
        if device.type == "cuda":
            return int(torch.cuda.get_device_properties(device).total_memory * GPU_SHARE)
        if device.type == "mps":
            return int(torch.mps.recommended_max_memory() * GPU_SHARE)
        return int(machine_bytes() * CPU_SHARE) // neighbours()

    def resolve_host_memory(self, device: torch.device) -> int | None:
        """Bytes the plan may use on the host; None where that is the device's own memory."""
        if device.type != "cuda":
            return None
        if self.host_memory != "auto":
            return parse_bytes(self.host_memory, "--host-memory")
        return int(machine_bytes() * CPU_SHARE) // neighbours()

    @property
    def wishes(self) -> Wishes:
        """What is not left to the plan."""
        given = {name: getattr(self, name) for name in ("tokens", "projections", "features")}
        return Wishes(self.chunk, **{k: v for k, v in given.items() if v != "auto"})


def machine_bytes() -> int:
    """All memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def neighbours() -> int:
    """Processes that share this machine's memory, as torchrun says it; else this one alone."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(told)) if told.isdecimal() else 1


def devices() -> tuple[str, ...]:
    """Device types that exist here, accelerators first."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def parse_bytes(text: str | int, flag: str = "--memory") -> int:
    """``"20G"``, ``"1.5 GiB"`` or ``"800M"`` → bytes (binary units); a number is bytes already."""
    if isinstance(text, int):
        counted = text >= 0 and not isinstance(text, bool)
        checks.require(counted, flag, "be a size such as 20G, or a number of bytes", text)
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        checks.fail(flag, "be a size such as 20G", f"'{text}'")
    return int(float(match[1]) * UNITS[match[2].upper()])


def show_bytes(count: float) -> str:
    """Bytes for a person: ``"1.5 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
