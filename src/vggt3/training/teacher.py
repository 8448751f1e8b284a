"""The backbone's own softmax attention as a teacher: what another backend's tokens should be.

Poses and depth tell an adapter once a view what it got wrong; the tokens that the heads read tell
it at every patch, and without the noise of truth that no attention could know. (Transferring
attention before fine-tuning it: Zhang et al. 2024, LoLCATs, arXiv 2410.10254; there layer by
layer, here of the whole model, so that errors that add up are seen.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vggt3.model.choice import ModelChoice
from vggt3.model.encoder import Encoder
from vggt3.model.opening import open_model
from vggt3.model.precision import placed
from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

ONE, REST = slice(0, 1), slice(1, None)
"""The camera token's place, and the registers' and patches'."""


@dataclass
class Lesson:
    """What one reading of a scene by the pupil leaves for the teacher."""

    patches: list[Tensor] = field(default_factory=list)
    """The encoder's, for each group."""
    tokens: list[Tensor] = field(default_factory=list)
    """[B, V, P, 2C] of each of the heads' layers."""

    def conduct(self, of: Conduct) -> Conduct:
        """``of``, overheard."""
        return replace(of, encode=self._encode, feature=self._feature)

    def _encode(self, encoder: Encoder, images: Tensor, ahead: bool) -> Tensor:
        self.patches.append(encoder(images, ahead))
        return self.patches[-1]

    def _feature(self, chunk: int, slot: int, tokens: Tensor) -> Tensor:
        self.tokens.append(tokens)
        return tokens


class Teacher:
    """A frozen model of the pupil's backbone, on its own copy of the weights.

    No module of the pupil's: it is neither saved nor trained, and no wrapper sees it.
    """

    def __init__(self, model: VGGT3) -> None:
        self.given = model
        self.model: VGGT3 | None = None

    def settle(self, device: torch.device) -> None:
        """Move to the training's device; bf16 on a GPU."""
        if self.model is None:
            dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
            self.model = placed(self.given, device, dtype)

    @torch.no_grad()
    def tokens(self, views: Views, lesson: Lesson) -> list[Tensor]:
        """The teacher's own [B, V, P, 2C] of the heads' layers, from the pupil's patches."""
        assert self.model is not None, "settle comes first"
        dtype = self.model.aggregator.camera_token.dtype
        patches = iter(lesson.patches)
        conduct = Conduct(ahead=True, encode=lambda *given: next(patches).to(dtype))
        with torch.autocast(views.groups[0].images.device.type, enabled=False):
            return list(self.model.read(views, conduct).features[0])

    def distance(self, views: Views, lesson: Lesson) -> Tensor:
        """How far the pupil's tokens are from the teacher's, see :func:`distance`."""
        return distance(lesson.tokens, self.tokens(views, lesson))


def softmax_teacher(weights: str | None) -> Teacher:
    """The backbone behind ``--weights`` with the softmax attention that it was trained with.

    Raises:
        InputError: no such backbone, or it has no softmax adapter.
    """
    return Teacher(open_model(ModelChoice(weights=weights, attention="softmax")).model)


def distance(
    found: Sequence[Tensor],  # [B, V, P, 2C] each, camera token first
    wanted: Sequence[Tensor],  # the same
) -> Tensor:
    """Squared distance over the wanted tokens' own spread, mean over layers: 0 is equal, 1 is as
    far as their mean. Camera tokens, one a view, count as much as all others together."""
    terms = []
    for x, y in zip(found, wanted, strict=True):
        x, y = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, y))
        away, spread = (x - y).square(), (y - y.mean(dim=(0, 1), keepdim=True)).square()
        terms += [away[:, :, rows].sum() / spread[:, :, rows].sum() for rows in (ONE, REST)]
    return torch.stack(terms).mean()
