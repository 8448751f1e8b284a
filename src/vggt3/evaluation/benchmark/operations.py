"""Operations of a whole run, counted on the meta device: the equations' own, each once.

What a plan computes a second time to save memory is not counted, so that the share of the matmul
rate falls where work is repeated. Kernels of any kind count as the equations that they compute.
"""

from __future__ import annotations

import torch

from vggt3.attention import cost
from vggt3.attention.cost import NOWHERE, Sizes
from vggt3.attention.kernels import flops
from vggt3.attention.registry import LayerSpec
from vggt3.model.vggt3 import VGGT3
from vggt3.types import PATCH, Views


class Counter:
    """FLOPs (2 for a multiply-add) of scenes of any size, for all backends of one model size."""

    def __init__(self, model: VGGT3) -> None:
        """Take any model of the size meant; its own backends do not matter."""
        self.model = model
        self.meta = {
            name: tensor.to(NOWHERE)
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        self._layers: dict[tuple[LayerSpec, int, tuple[int, int]], int] = {}
        self._rest: dict[tuple[int, tuple[int, int]], int] = {}

    def count(self, specs: tuple[LayerSpec, ...], views: int, size: tuple[int, int]) -> int | None:
        """Of a run over ``views`` views of ``size`` with these backends.

        None where a backend cannot be counted without values.
        """
        try:
            layers = sum(self._layer(spec, views, size) for spec in specs)
            if (views, size) not in self._rest:
                own = sum(self._layer(spec, views, size) for spec in self.model.specs)
                self._rest[views, size] = self.whole(views, size) - own
        except (NotImplementedError, RuntimeError):
            return None
        return self._rest[views, size] + layers

    def whole(self, views: int, size: tuple[int, int]) -> int:
        """Of the model as it is."""
        images = torch.empty(1, views, 3, *size, dtype=torch.uint8, device=NOWHERE)
        with torch.no_grad(), flops.counter() as counted:
            torch.func.functional_call(self.model, self.meta, (Views.from_tensor(images),))
        return int(counted.get_total_flops())

    def _layer(self, spec: LayerSpec, views: int, size: tuple[int, int]) -> int:
        key = (spec, views, size)
        if key not in self._layers:
            config, grid = self.model.config, (size[0] // PATCH, size[1] // PATCH)
            sizes = Sizes(config.width, config.heads, config.special, grid)
            self._layers[key] = cost.measure(spec, sizes, views).flops
        return self._layers[key]
