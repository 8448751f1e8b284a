"""One scene over several processes: each holds some of its views (``--share-views N``).

N neighbours draw the same scenes. Deltas, the scene's scale and the counts of the losses are
summed among them while a step is computed; each process's loss is its share of the whole, so the
gradient of the whole is the sum of theirs. Neighbourhoods see scenes of their own, and the mean
over these is what moves the weights: processes are a mesh of scenes × views.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from vggt3 import losses
from vggt3.data.procedural.scene import SceneBatch
from vggt3.distributed import ALONE, World
from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import DenseMaps
from vggt3.training.fit import Fitting
from vggt3.training.module import ALL
from vggt3.types import Views

OWN = ("gradient", "skipped")
"""Of what is reported, what every process already has in whole."""


class SharedFitting(Fitting):
    """A :class:`Fitting` whose processes share the views of each training scene.

    Held-out scenes are read by one process each.
    """

    views: World = ALONE
    """The processes that share this one's scenes."""

    def setup(self, stage: str) -> None:
        """Find those that share this process's scenes."""
        super().setup(stage)
        if stage == "fit":
            self.share(self.sharing, self.trainer.strategy.root_device)

    def share(self, sharing: int, device: torch.device) -> None:
        """Let ``sharing`` neighbours hold a scene together; all processes call this at once."""
        whole = World.current()
        self.sharing, self.views = sharing, whole
        if sharing < whole.size:
            shape, names = (whole.size // sharing, sharing), ("scenes", "views")
            mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)["views"]
            self.views = World(mesh.get_local_rank(), sharing, mesh.get_group())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Sum the processes' gradients, then go on as one process does."""
        self.sum_gradients()
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def sum_gradients(self) -> None:
        """Sum over those that share a scene, mean over the scenes; what is unused here is zero."""
        world = World.current()
        scenes = world.size // self.sharing
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                own = parameter.grad
                own = torch.zeros_like(parameter) if own is None else own
                parameter.grad = world.sum(own) / scenes

    def predict_batch(
        self, batch: SceneBatch, shown: slice = ALL, conduct: Conduct | None = None
    ) -> tuple[list[Tensor], DenseMaps]:
        """The pose encodings [B, V, 9] of all views; the dense maps of the views held here."""
        if not self.training:
            return super().predict_batch(batch, shown, conduct)
        world, count = self.views, batch.images.shape[1]
        views = Views.from_tensor(batch.images).shard(*world.share(count))
        trunk = self.model.read(views, replace(conduct or self.conduct, world=world))
        return self.model.poses(trunk), self.model.dense(trunk.features[0], views.groups[0])

    def loss(
        self, batch: SceneBatch, stages: list[Tensor], maps: DenseMaps, shown: slice = ALL
    ) -> tuple[dict[str, Tensor], Tensor]:
        """This process's share of every term, and of their weighted sum."""
        if not self.training:
            return super().loss(batch, stages, maps, shown)
        world = self.views
        own = slice(*world.share(batch.images.shape[1]))
        with torch.autocast(batch.images.device.type, enabled=False):
            target = losses.normalised_targets(
                batch.camera_from_world[:, own],
                batch.intrinsics[:, own],
                batch.depth[:, own],
                batch.valid[:, own],
                self.model.config.pixel_offset,
                world,
            )
            mine = [stage[:, own] for stage in stages]
            terms = {"camera": losses.camera_term(mine, target, self.weights, world)}
            terms |= losses.dense_terms(
                maps.depth,
                maps.depth_confidence,
                maps.points,
                maps.points_confidence,
                target,
                self.weights,
                world,
            )
            return terms, losses.total(terms, self.weights)

    def _note(self, values: dict[str, Tensor]) -> None:
        """Add the whole of each term to what is reported next."""
        shares: dict[str, Any] = {k: v.detach() for k, v in values.items() if k not in OWN}
        if shares:
            whole = self.views.sum(torch.stack(list(shares.values())))
            values = {**values, **dict(zip(shares, whole.unbind(), strict=True))}
        super()._note(values)
