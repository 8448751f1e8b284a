"""The LightningModule behind ``vggt3 fit``: steps that can be repeated, and a stop at nonsense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vggt3 import checks
from vggt3.data.procedural.scene import SceneBatch
from vggt3.distributed import World
from vggt3.geometry.camera import decode_pose
from vggt3.losses import LossWeights
from vggt3.model.opening import LoadedModel
from vggt3.training import checkpoints, sharding
from vggt3.training.data import ProceduralData
from vggt3.training.module import LearningOptions, NotFinite, Training
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.teacher import Teacher

STEP_SEED = 1_000_003
"""Keeps the random numbers of neighbouring steps apart."""


class Fitting(Training):
    """A :class:`Training` whose every step depends on the weights and the step's number alone."""

    def __init__(
        self,
        loaded: LoadedModel,
        learning: LearningOptions | None = None,
        optimizing: OptimizerOptions | None = None,
        weights: LossWeights | None = None,
        seed: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__(loaded.model, learning, optimizing, weights, teacher)
        self.loaded, self.seed = loaded, seed
        self.strict_loading = False  # a checkpoint holds what learns; on_load_checkpoint sees to it
        self._watch = Watch()
        self._bad = torch.zeros((), dtype=torch.bool)

    def facts(self, scenes: str) -> checkpoints.Facts:
        """What a checkpoint of this fit belongs to."""
        part = self.learning.train
        frozen = checkpoints.fingerprint(self.model, part)
        return checkpoints.Facts(self.model.specs, part, frozen, scenes)

    def setup(self, stage: str) -> None:
        """Take down what checkpoints of this fit belong to."""
        if stage == "fit":
            self._facts = self.facts(self.data.described)

    def configure_model(self) -> None:
        """Spread the weights over processes, where the strategy is to."""
        if sharding.wanted(self.trainer):
            sharding.shard(self, self.model)

    @property
    def data(self) -> ProceduralData:
        """Where the scenes come from."""
        found = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(found, ProceduralData)
        return found

    def tried(self, batch: SceneBatch) -> Tensor:
        """The loss of a batch, of which nothing is remembered."""
        return self.loss(batch, *self.predict_batch(batch))[1]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The step's learning rate, and its random numbers."""
        super().on_train_batch_start(batch, batch_idx)
        part = batch_idx % self.trainer.accumulate_grad_batches
        place = (self.global_step * 256 + part) * self.trainer.world_size + self.global_rank
        torch.manual_seed((self.seed * STEP_SEED + place) % 2**63)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, and stop where the loss is not finite."""
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        # Every process stops at the same step.
        bad = World.current().sum(self._bad.float()) > 0
        self._bad = torch.zeros_like(self._bad)
        step = self._watch.first_bad(self.global_step, bad)
        if step is not None:
            checks.fail(
                f"the loss of step {step + 1} ({self.data.scenes_of(step)})",
                "be finite",
                "nan or infinity: stopped with the weights from before that step",
                error=NotFinite,
            )

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Whether the loss is finite is asked before the weights move."""
        self._bad = self._bad.to(loss.device) | ~loss.detach().isfinite()
        super().backward(loss, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what learns, and say what it belongs to."""
        checkpoint["state_dict"] = checkpoints.kept(checkpoint["state_dict"], self.learning.train)
        spread = sharding.wanted(self.trainer)
        facts = replace(self._facts, method=self.optimizing.method, spread=spread)
        checkpoint[checkpoints.KEY] = facts.to_data()
        # Gradients are not kept: a step that is half summed up begins anew.
        whole = self.global_step * self.trainer.accumulate_grad_batches
        seen = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (seen["total"], seen["current"]):
            ahead = counts["ready"] - whole
            counts |= {name: max(0, count - ahead) for name, count in counts.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Hold a checkpoint's tensors to the model."""
        if sharding.wanted(self.trainer):
            return  # the strategy has loaded them by their names already
        ours = checkpoints.kept(self.state_dict(), self.learning.train)
        theirs = checkpoint["state_dict"]
        odd = sorted(
            name
            for name in ours.keys() | theirs.keys()
            if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
        )
        checks.require(
            not odd,
            "--ckpt_path",
            f"hold the {len(ours)} tensors that learn",
            f"a difference in {len(odd)}, such as {', '.join(odd[:2])}",
            error=checks.DataError,
        )

    def test_step(self, batch: SceneBatch, batch_idx: int) -> None:
        """Score one batch of scenes that no fit and no validation sees."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Hand the scores on."""
        self.on_validation_epoch_end()

    def predict_step(self, batch: SceneBatch, batch_idx: int) -> dict[str, Tensor]:
        """Poses and depth of one batch of scenes, beside the truth."""
        stages, maps = self.predict_batch(batch)
        size = (batch.images.shape[-2], batch.images.shape[-1])
        cameras, intrinsics = decode_pose(stages[-1].float(), size)
        return {
            "images": batch.images,
            "camera_from_world": cameras,
            "intrinsics": intrinsics,
            "depth": maps.depth,
            "depth_confidence": maps.depth_confidence,
            "true_camera_from_world": batch.camera_from_world,
            "true_intrinsics": batch.intrinsics,
            "true_depth": batch.depth,
        }


class Watch:
    """Finds the first step that is not finite, without making a GPU wait for each.

    On a GPU the fused optimizer itself leaves such a step out, and the answer is read one step
    later: the weights are then still those from before it.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Tensor, torch.cuda.Event] | None = None

    def first_bad(
        self,
        step: int,
        bad: Tensor,  # [] bool
    ) -> int | None:
        """The number of a step that is known to be bad by now."""
        if not bad.is_cuda:
            return step if bool(bad) else None
        found = None
        if self._pending is not None:
            earlier, answer, copied = self._pending
            copied.synchronize()
            found = earlier if bool(answer) else None
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_(bad, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._pending = (step, answer, copied)
        return found
