"""The LightningModule: a step on rendered scenes, and the validation on held-out ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from vggt3 import checks, losses
from vggt3.data.procedural.scene import SceneBatch
from vggt3.distributed import World
from vggt3.geometry.camera import decode_pose
from vggt3.losses import LossWeights, Targets
from vggt3.metrics import AbsRel, PoseAccuracy, sideways, still_baseline
from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import VGGT3, DenseMaps
from vggt3.training import compiling, freezing, optimizer, sharding
from vggt3.training.muon import MuonAndAdamW
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.recording import Recorder
from vggt3.training.teacher import Lesson, Teacher
from vggt3.types import Views

ALL = slice(None)


class NotFinite(checks.DataError):
    """Losses or gradients are not finite; the weights are those before it."""


@dataclass(frozen=True)
class LearningOptions:
    """What learns, and how a step is computed."""

    train: str = "adapter"
    """adapter (the global blocks' attention), all (everything but the encoder) or encoder
    (everything)."""
    checkpointing: bool = False
    """Keep only block borders in memory and compute the rest again in the backward pass."""
    dense_every: int = 1
    """In training the dense heads see every n-th view of a scene, another one each step."""
    compile: bool = False
    """Compile the blocks, heads and losses with torch.compile."""
    teacher: float = 0.0
    """Weight of the distance between the tokens that the heads read and those that the
    backbone's softmax attention gives; an adapter alone can be taught."""
    record: bool = False
    """On a GPU: record the kernels of a step once and replay them (CUDA graphs)."""

    def __post_init__(self) -> None:
        every = self.dense_every
        checks.require(every >= 1, "--learning.dense_every", "be at least 1", every)
        name, told = "--learning.teacher", "be at least 0, and 0 unless an adapter learns"
        taught = self.teacher > 0
        fit = self.teacher >= 0 and not (taught and self.train != "adapter")
        checks.require(fit, name, told, f"{self.teacher} while {self.train} learns")


class Training(LightningModule):
    """VGGT3 learning from scenes whose truth is known."""

    def __init__(
        self,
        model: VGGT3,
        learning: LearningOptions | None = None,
        optimizing: OptimizerOptions | None = None,
        weights: LossWeights | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.learning = learning or LearningOptions()
        self.optimizing = optimizing or OptimizerOptions()
        self.weights = weights or LossWeights()
        self.teacher = teacher
        self.progress = 0.0
        """Share of the run that is done; set from the step or by a deadline."""
        self.seen: dict[str, Tensor] = {}
        """Sums of every loss term and of the gradient's norm since they were last reported."""
        self.seen_times: dict[str, int] = {}
        self.sharing = 1
        """Processes that hold one scene together."""
        freezing.freeze(model, self.learning.train)
        self.conduct = Conduct(checkpoint=self.learning.checkpointing)
        self.dense_terms = losses.dense_terms
        if self.learning.compile:
            compiling.compile_parts(model)
            self.conduct = compiling.CompiledConduct(checkpoint=self.learning.checkpointing)
            self.dense_terms = compiling.compiled(losses.dense_terms)
        self.recorder: Recorder | None = None
        self.poses, self.trivial, self.depths = PoseAccuracy(), PoseAccuracy(), AbsRel()

    def train(self, mode: bool = True) -> Training:
        """Training mode, in which what is frozen stays as at inference."""
        super().train(mode)
        for module in freezing.frozen_modules(self.model):
            module.eval()
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer of what learns."""
        return optimizer.build(self.model, self.optimizing)

    def on_fit_start(self) -> None:
        """Training mode, which Lightning leaves to us, and what makes a GPU fast."""
        self.train()
        if self.teacher is not None:
            self.teacher.settle(self.trainer.strategy.root_device)
        if self.trainer.strategy.root_device.type == "cuda":
            # What must be fp32 is a sum or small; tf32 rounds finer than the bf16 around.
            torch.set_float32_matmul_precision("high")
            if sharding.wanted(self.trainer):
                return  # it takes no other memory format
            for head in (self.model.depth_head, self.model.point_head):
                head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """Where steps are recorded or scenes shared, gradients are summed once a step is whole,
        not by Lightning's wrapper."""
        wrapped = self.trainer.strategy.model
        own = self.learning.record or self.sharing > 1
        if own and isinstance(wrapped, DistributedDataParallel):
            wrapped.require_backward_grad_sync = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate of this step."""
        steps = self.trainer.max_steps if self.trainer.max_steps > 0 else None
        if steps is not None:
            self.progress = max(self.progress, self.global_step / steps)
        rate = self.optimizing.rate(self.global_step, self.progress, steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["share"]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, remember the norm, and leave out a step whose gradient is not finite.

        Lightning's own refuses a fused optimizer for a reason that only fp16 has. A fused step
        leaves itself out, momentum included, without waiting for the device.
        """
        if self.recorder is not None:
            self.recorder.average(World.current())
        moving = [p for group in optimizer.param_groups for p in group["params"]]
        limit = self.optimizing.clip or torch.inf
        norm = sharding.whole(torch.nn.utils.clip_grad_norm_(moving, limit))
        skip = (~norm.isfinite()).float()
        if isinstance(optimizer, MuonAndAdamW) or optimizer.defaults.get("fused"):
            optimizer.found_inf = skip  # type: ignore[attr-defined]
        elif bool(skip):
            optimizer.zero_grad()  # what has no gradient is not moved
        self._note({"gradient": norm.nan_to_num(0, 0), "skipped": skip})

    def training_step(self, batch: SceneBatch, batch_idx: int) -> Tensor:
        """The loss of one batch of scenes."""
        every = self.learning.dense_every
        shown = slice(self.global_step % every, None, every)
        if batch.images.shape[1] <= shown.start:
            shown = slice(None)
        if self.learning.record and self.recorder is None:
            self.recorder = self._recorder()
        step = self.terms if self.recorder is None else self.recorder.step
        terms = step(batch, shown)
        self._note({n: t.nan_to_num(0, 0) for n, t in terms.items()})
        return terms["loss"]

    def _recorder(self) -> Recorder:
        name, batches = "--learning.record", self.trainer.accumulate_grad_batches
        spread = sharding.wanted(self.trainer)
        checks.require(not spread, name, "stand without ModelParallelStrategy", "with it")
        checks.require(self.sharing == 1, name, "stand without --share-views", self.sharing)
        told = "stand without trainer.accumulate_grad_batches"
        checks.require(batches == 1, name, told, batches)
        return Recorder(self.terms, [p for p in self.model.parameters() if p.requires_grad])

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The gradients of the loss; a recorded step has brought them along."""
        if self.recorder is None:
            loss.backward(*args, **kwargs)

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """Forget the last step's gradients; a recorded step writes over them."""
        if self.recorder is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def terms(self, batch: SceneBatch, shown: slice = ALL) -> dict[str, Tensor]:
        """``loss`` and every term of it, unweighted."""
        lesson = None if self.teacher is None else Lesson()
        conduct = self.conduct if lesson is None else lesson.conduct(self.conduct)
        stages, maps = self.predict_batch(batch, shown, conduct)
        terms, loss = self.loss(batch, stages, maps, shown)
        if self.teacher is not None and lesson is not None:
            terms["teacher"] = self.teacher.distance(Views.from_tensor(batch.images), lesson)
            loss = loss + self.learning.teacher * terms["teacher"]
        return {"loss": loss, **terms}

    def predict_batch(
        self, batch: SceneBatch, shown: slice = ALL, conduct: Conduct | None = None
    ) -> tuple[list[Tensor], DenseMaps]:
        """The pose encodings [B, V, 9] after each refinement, and the ``shown`` views' maps."""
        trunk = self.model.read(Views.from_tensor(batch.images), conduct or self.conduct)
        features = tuple(x[:, shown] for x in trunk.features[0])
        maps = self.model.dense(features, Views.from_tensor(batch.images[:, shown]).groups[0])
        return self.model.poses(trunk), maps

    def loss(
        self, batch: SceneBatch, stages: list[Tensor], maps: DenseMaps, shown: slice = ALL
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Every term, unweighted, and their weighted sum; always in fp32 or wider."""
        with torch.autocast(batch.images.device.type, enabled=False):
            target = targets(batch, self.model.config.pixel_offset)
            terms = {"camera": losses.camera_term(stages, target, self.weights)}
            # As views without scenes: one shape whatever number of views a scene has.
            terms |= self.dense_terms(
                maps.depth.flatten(0, 1),
                maps.depth_confidence.flatten(0, 1),
                maps.points.flatten(0, 1),
                maps.points_confidence.flatten(0, 1),
                replace(
                    target,
                    depth=target.depth[:, shown].flatten(0, 1),
                    points=target.points[:, shown].flatten(0, 1),
                    valid=target.valid[:, shown].flatten(0, 1),
                ),
                self.weights,
            )
            return terms, losses.total(terms, self.weights)

    def validation_step(self, batch: SceneBatch, batch_idx: int) -> None:
        """Score this process's share of a batch of held-out scenes."""
        own = dealt(batch.images.shape[0], batch_idx, World.current())
        # Without a share it goes along with one scene: the others may wait for its weights.
        batch = some_of(batch, own or [0])
        with compiling.uncompiled():
            stages, maps = self.predict_batch(batch)
        size = (batch.images.shape[-2], batch.images.shape[-1])
        if not own:
            return
        with torch.autocast(batch.images.device.type, enabled=False):
            guess, _ = decode_pose(stages[-1], size)
            truth = batch.camera_from_world
            least = still_baseline(batch.depth, batch.valid)
            self.poses.update(guess, truth, least)
            self.trivial.update(sideways(truth), truth, least)
            self.depths.update(maps.depth, batch.depth, batch.valid)

    def on_validation_epoch_end(self) -> None:
        """Hand the scores of all processes' scenes to the logger and callbacks."""
        scores = {**self.poses.compute(), **self.depths.compute()}
        scores["trivial"] = self.trivial.compute()["auc@30"]
        for metric in (self.poses, self.trivial, self.depths):
            metric.reset()
        self.log_dict({f"val/{name}": value.float() for name, value in scores.items()})

    def _note(self, values: dict[str, Tensor]) -> None:
        """Add to what is reported next; nothing is read back from the device here."""
        for name, value in values.items():
            value = value.detach()
            self.seen[name] = self.seen[name] + value if name in self.seen else value
            self.seen_times[name] = self.seen_times.get(name, 0) + 1

    def report(self) -> dict[str, float]:
        """Means since the last report, that of gradients over the finite ones; waits once for the
        device."""
        if not self.seen:
            return {}
        sums = torch.stack([value.float() for value in self.seen.values()]).tolist()
        pairs = zip(self.seen, sums, strict=True)
        found = {name: total / self.seen_times[name] for name, total in pairs}
        if "gradient" in found:  # of the steps that had one, nan where none had
            share = 1 - found.get("skipped", 0.0)
            found["gradient"] = found["gradient"] / share if share > 0 else math.nan
        self.seen, self.seen_times = {}, {}
        return found


def targets(batch: SceneBatch, pixel_offset: float) -> Targets:
    """The truth of a batch. ``pixel_offset`` is the preset's: a model that unprojects its depth
    through integer pixels learns cameras and points that agree with that."""
    return losses.normalised_targets(
        batch.camera_from_world, batch.intrinsics, batch.depth, batch.valid, pixel_offset
    )


def dealt(scenes: int, batch_idx: int, world: World) -> list[int]:
    """Which scenes of a batch of held-out ones are this process's: all are dealt in turn."""
    first = batch_idx * scenes
    return [n for n in range(scenes) if (first + n) % world.size == world.rank]


def some_of(batch: SceneBatch, scenes: list[int]) -> SceneBatch:
    """A batch of some of the scenes."""
    if len(scenes) == batch.images.shape[0]:
        return batch
    return SceneBatch(**{f.name: getattr(batch, f.name)[scenes] for f in fields(batch)})
