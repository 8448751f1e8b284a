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


@dataclass(frozen=True)
class RunOptions:
    """Where and how the model runs."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps, …; auto takes an accelerator if there is one."""
    precision: str = "auto"
    """fp32, or bf16 (matrix products under autocast); auto is bf16 on CUDA, else fp32."""
    memory: str = "auto"
    """Bytes that the plan may use on the device, such as 20G; auto is a fixed share of all."""
    chunk: int | None = None
    """Views worked on at a time; the plan chooses if not given. Changes no result."""
    points_from: str = "depth"
    """depth: unproject depth with the camera; head: the point head's own."""

    def __post_init__(self) -> None:
        checks.choose("--precision", self.precision, ("auto", "fp32", "bf16"))
        checks.choose("--points-from", self.points_from, ("depth", "head"))
        checks.require(
            self.chunk is None or self.chunk >= 1, "--chunk", "be at least 1", self.chunk
        )
        if self.memory != "auto":
            parse_bytes(self.memory)

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
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * CPU_SHARE)


def devices() -> tuple[str, ...]:
    """Device types that exist here, accelerators first."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def parse_bytes(text: str) -> int:
    """``"20G"``, ``"1.5 GiB"`` or ``"800M"`` → bytes (binary units)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        checks.fail("--memory", "be a size such as 20G", f"'{text}'")
    return int(float(match[1]) * UNITS[match[2].upper()])


def show_bytes(count: float) -> str:
    """Bytes for a person: ``"1.5 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
