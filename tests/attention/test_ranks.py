"""A scene shared by processes, unevenly, equals the same scene in one: outputs and gradients."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tests.attention.scenes import by_view, gradients, model_of, photos, with_masks
from tests.attention.variants import SPECS, label
from vggt3.attention.registry import LayerSpec
from vggt3.distributed import ALONE, World
from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Views

LIMIT = 1e-9


def scene(masked: bool) -> Views:
    """Three views of two sizes: the second is of the other size."""
    views = Views.from_list(photos(dtype=torch.float64, count=3))
    return with_masks(views) if masked else views


def read(model: VGGT3, views: Views, world: World) -> dict[str, Tensor]:
    """This rank's tokens and every pose; the gradients of this rank's share of a loss."""
    trunk = model.read(views, Conduct(world))
    tokens, pose = by_view(trunk, views), model.poses(trunk)[-1]
    loss = pose[:, list(views.ids)].abs().sum()
    for own in tokens.values():
        loss = loss + own.square().mean()
    loss.backward()
    return {"pose": pose.detach(), **{f"view {i}": t.detach() for i, t in tokens.items()}}


def check_shares(spec: LayerSpec, world: World, shares: list[int], masked: bool) -> None:
    whole, mine = (model_of(spec, dtype=torch.float64).train() for _ in range(2))
    expected = read(whole, scene(masked), ALONE)
    start = sum(shares[: world.rank])
    found = read(mine, scene(masked).shard(start, start + shares[world.rank]), world)
    assert len(found) == 1 + shares[world.rank]
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=LIMIT, atol=LIMIT)
    wanted = gradients(whole)
    scale = max(float(gradient.norm()) for gradient in wanted.values())
    for name, gradient in gradients(mine).items():
        error = (world.sum(gradient) - wanted[name]).norm()
        # Some, such as that of softmax's key bias, are zero but for rounding.
        assert error <= LIMIT * max(float(wanted[name].norm()), 1e-6 * scale), (name, error)


def check_rank(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=3)
    pair = dist.new_group([0, 1])
    for spec in SPECS:
        try:
            check_shares(spec, World.current(), [2, 1, 0], masked=True)
            if rank < 2:
                check_shares(spec, World(rank, 2, pair), [2, 1], masked=False)
        except Exception as error:
            raise AssertionError(f"{label(spec)} on rank {rank}: {error}") from error
    dist.destroy_process_group()


def test_every_backend_over_two_and_three_processes(tmp_path: Path) -> None:
    spawn(check_rank, (f"file://{tmp_path / 'meeting'}",), nprocs=3)
