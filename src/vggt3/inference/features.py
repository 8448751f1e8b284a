"""The dense heads' inputs between the layers and the heads: where they lie, and in which form."""

from __future__ import annotations

from torch import Tensor

from vggt3.inference.plan import Plan
from vggt3.inference.shelf import Copies, HostMemory, HostShelf
from vggt3.model.scene import Conduct, Memory
from vggt3.model.vggt3 import VGGT3, Projected
from vggt3.types import Views


class Features:
    """Takes features as the layers make them, gives a chunk's four to the heads, once each.

    Raw or projected, the first ``plan.near`` chunks' on the device and the others' in host
    memory; or none, and the chunk reads the settled memory once more, if there are heads to run.
    """

    def __init__(
        self, model: VGGT3, plan: Plan, chunked: Views, host: HostMemory, copies: Copies
    ) -> None:
        self.model, self.plan, self.chunked = model, plan, chunked
        self.slots = len(set(model.config.feature_layers))
        self.parts = 2 if plan.features == "projected" else 1
        self.near: dict[int, Tensor] = {}
        self.far = HostShelf(host, copies, ahead=self.slots * self.parts)

    def keep(self, chunk: int, slot: int, tokens: Tensor) -> None:
        """Take one feature [B, V_c, P, 2C] of a chunk."""
        if self.plan.features in ("replay", "none") or not self.chunked.groups[chunk].ids:
            return
        shelf: dict[int, Tensor] | HostShelf = self.far
        if chunk < self.plan.near:
            shelf = self.near
        pieces: tuple[Tensor, ...] = (tokens,)
        if self.plan.features == "projected":
            pieces = self.model.projected(slot, tokens, self.chunked.groups[chunk].grid)
        for part, piece in enumerate(pieces):
            shelf[self._key(chunk, slot, part)] = piece

    def take(self, chunk: int, memory: Memory) -> tuple[Tensor | Projected, ...]:
        """A chunk's features, for the last time; all features have been kept."""
        if self.plan.features == "replay":
            group = self.chunked.groups[chunk]
            again = Views((group,), self.chunked.total)
            return self.model.read(
                again, Conduct(keep=False, ahead=True), memory, own=True
            ).features[0]
        shelf = self.near if chunk < self.plan.near else self.far
        found: list[Tensor | Projected] = []
        for slot in range(self.slots):
            pieces = [shelf.pop(self._key(chunk, slot, part)) for part in range(self.parts)]
            found.append(pieces[0] if self.parts == 1 else (pieces[0], pieces[1]))
        return tuple(found)

    def _key(self, chunk: int, slot: int, part: int) -> int:
        return (chunk * self.slots + slot) * self.parts + part
