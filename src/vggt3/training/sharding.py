"""Weights, gradients and the optimizer's sums spread over processes (FSDP2).

Asked for by Lightning's ModelParallelStrategy. What is called as a module (blocks of encoder and
frames, MLPs, heads) is gathered when it runs and let go again; the rest, the global attention
above all, is gathered for the length of a step.
"""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from vggt3 import checks
from vggt3.model.vggt3 import VGGT3

STEPS = ("tried", "training_step", "validation_step", "test_step", "predict_step")


def wanted(trainer: Trainer) -> bool:
    """Whether the trainer's strategy spreads the weights."""
    return isinstance(trainer.strategy, ModelParallelStrategy)


def units(model: VGGT3) -> list[nn.Module]:
    """The parts that are gathered each for itself."""
    aggregator = model.aggregator
    found: list[nn.Module] = [*model.encoder.blocks, *aggregator.frame_blocks]
    found += [aggregator.block(layer).mlp for layer in range(model.config.layers)]
    return [*found, model.camera_head, model.depth_head, model.point_head]


def shard(module: LightningModule, model: VGGT3) -> None:
    """Spread what ``module`` holds over the processes of its trainer's strategy, once.

    Raises:
        UsageError: the strategy splits tensors too, or writes checkpoints in pieces.
    """
    if isinstance(module, FSDPModule):
        return
    strategy = module.trainer.strategy
    assert isinstance(strategy, ModelParallelStrategy)
    mesh = strategy.device_mesh
    checks.require(
        mesh["tensor_parallel"].size() == 1,
        "trainer.strategy.init_args.tensor_parallel_size",
        "be 1 (and data_parallel_size the number of processes)",
        mesh["tensor_parallel"].size(),
    )
    checks.require(
        not strategy._save_distributed_checkpoint,
        "trainer.strategy.init_args.save_distributed_checkpoint",
        "be false, since a checkpoint is one file",
        "true",
    )
    for unit in units(model):
        fully_shard(unit, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    for name in STEPS:
        register_fsdp_forward_method(module, name)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all of its parts; those that hold one call this at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(trainer: Trainer, model: VGGT3) -> VGGT3:
    """The model with whole tensors on the first process; all call this at once."""
    if not any(isinstance(p, DTensor) for p in model.parameters()):
        return model
    state = trainer.strategy.lightning_module_state_dict()
    found = VGGT3(model.config, model.specs)
    if trainer.is_global_zero:
        own = {k.removeprefix("model."): t for k, t in state.items() if k.startswith("model.")}
        found.load_state_dict(own)
    return found.eval()
