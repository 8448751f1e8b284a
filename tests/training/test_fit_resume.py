"""A fit that was killed and goes on ends where the unbroken one does, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from tests.training.fits import TINY, differing, fit, learned, noisy, painted
from vggt3.training.fit import Fitting
from vggt3.training.keeping import Files, Keeper, Lines
from vggt3.training.rendering import Renderer

WORDS = [*TINY, "--attention", "ttt_shortconv", "--trainer.max_steps", "6", "--save_every", "2"]
WORDS += ["--optimizer.lr", "1e-2"]


@pytest.fixture
def random_steps(cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fitting, "training_step", noisy(Fitting.training_step))


def fit_until_killed(output: Path, step: int, threads: int) -> None:
    """In a process of its own: the test's settings, and death after ``step`` steps."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    Renderer.__call__ = painted  # type: ignore[method-assign]
    Fitting.training_step = noisy(Fitting.training_step)  # type: ignore[method-assign]
    keep = Keeper.on_train_batch_end

    def die(self: Keeper, trainer: Trainer, *args: object) -> None:
        keep(self, trainer, *args)  # type: ignore[arg-type]
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Keeper.on_train_batch_end = die  # type: ignore[method-assign, assignment]
    fit(output, *WORDS)


@pytest.mark.usefixtures("random_steps")
def test_killed_and_continued_is_the_unbroken_run(tmp_path: Path) -> None:
    assert fit(tmp_path / "whole", *WORDS) == 0
    broken = tmp_path / "broken"
    spawned = multiprocessing.get_context("spawn").Process(
        target=fit_until_killed, args=(broken, 3, torch.get_num_threads())
    )
    spawned.start()
    spawned.join()
    assert spawned.exitcode == -signal.SIGKILL
    assert not list(broken.glob("*.safetensors"))
    stored = torch.load(broken / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 2, "the last of every two steps"
    assert fit(broken, *WORDS, "--ckpt_path", str(broken / "last.ckpt")) == 0
    assert differing(tmp_path / "whole", broken) == []
    name = "backbone.ttt_shortconv.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (broken / name).read_bytes()


class Stop(BaseException):
    pass


@pytest.mark.usefixtures("random_steps")
@pytest.mark.parametrize(
    "extra",
    [[], ["--trainer.accumulate_grad_batches", "2"], ["--optimizer.method", "muon"]],
    ids=["plain", "accumulated", "muon"],
)
def test_stopped_after_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str]
) -> None:
    words = [*WORDS[:-2], "--optimizer.lr", "1e-2", "--save_every", "1", *extra]
    words += ["--trainer.val_check_interval", "2"]
    assert fit(tmp_path / "whole", *words) == 0
    keep = Keeper.on_train_batch_end
    for step in (1, 3, 4):
        broken = tmp_path / str(step)

        def stop(self: Keeper, trainer: Trainer, *args: object, at: int = step) -> None:
            keep(self, trainer, *args)  # type: ignore[arg-type]
            if trainer.global_step == at:
                raise Stop

        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "on_train_batch_end", stop)
            assert fit(broken, *words) == 1
        assert fit(broken, *words, "--ckpt_path", str(broken / "last.ckpt")) == 0
        assert differing(tmp_path / "whole", broken) == [], step


@pytest.mark.usefixtures("random_steps")
@pytest.mark.parametrize("batch", [0, 4])
def test_stopped_between_the_batches_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """As a limit of time does; what the step had summed up is summed again."""
    words = [*WORDS[:-2], "--optimizer.lr", "1e-2", "--save_every", "1"]
    words += ["--trainer.accumulate_grad_batches", "3"]
    assert fit(tmp_path / "whole", *words) == 0
    keep, broken = Keeper.on_train_batch_end, tmp_path / "broken"

    def stop(self: Keeper, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop |= args[-1] == batch
        keep(self, trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_train_batch_end", stop)
        assert fit(broken, *words) == 0
    stored = torch.load(broken / "last.ckpt", weights_only=True)
    assert stored["global_step"] == batch // 3
    assert fit(broken, *words, "--ckpt_path", str(broken / "last.ckpt")) == 0
    assert differing(tmp_path / "whole", broken) == []


@pytest.mark.usefixtures("random_steps")
def test_a_loss_that_is_not_finite_stops_and_keeps_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path / "whole", *WORDS) == 0
    steps = Fitting.training_step

    def breaks(module: Fitting, batch: object, batch_idx: int) -> torch.Tensor:
        loss = steps(module, batch, batch_idx)  # type: ignore[arg-type]
        return loss * (torch.nan if module.global_step == 3 else 1)

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "training_step", breaks)
        assert fit(broken, *WORDS, debug=False) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "step 4 (seed 1, scenes 3-3 of 3@28x28*1) must be finite" in told[0]
    assert (broken / "backbone.ttt_shortconv.safetensors").is_file()
    assert fit(broken, *WORDS, "--ckpt_path", str(broken / "last.ckpt")) == 0
    assert differing(tmp_path / "whole", broken) == [], "what was kept is the state before step 4"


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(("steps", "bad", "shown"), [(1, [0], "nan"), (3, [1, 2], "nan")])
def test_a_short_fit_without_gradients_is_no_success(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: int,
    bad: list[int],
    shown: str,
) -> None:
    backward = Fitting.backward

    def breaks(module: Fitting, loss: torch.Tensor) -> None:
        backward(module, loss)
        if module.global_step in bad:
            next(p for p in module.model.parameters() if p.requires_grad).grad[0] = torch.inf

    monkeypatch.setattr(Fitting, "backward", breaks)
    words = [*TINY, "--attention", "linear", "--trainer.max_steps", str(steps)]
    assert fit(tmp_path, *words, debug=False) == 1
    told = capsys.readouterr()
    assert f"the gradients of steps 1 to {steps} must be finite" in told.err
    assert f"got {len(bad)} without" in told.err
    assert f"gradient {shown}" in told.out and "gradient 0.0000" not in told.out
    assert "written:" not in told.out


@pytest.mark.usefixtures("random_steps")
def test_too_many_steps_without_a_gradient_stop_and_keep_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of ten may be left out; with the second of them it ends."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert fit(whole, *WORDS) == 0
    backward = Fitting.backward

    def breaks(module: Fitting, loss: torch.Tensor) -> None:
        backward(module, loss)
        if module.global_step in (2, 4):
            next(p for p in module.model.parameters() if p.requires_grad).grad[0] = torch.inf

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "backward", breaks)
        capsys.readouterr()
        assert fit(broken, *WORDS, "--save_every", "100", debug=False) == 1
    told = capsys.readouterr()
    assert "step 3 " in told.out, "one is left out"
    (line,) = told.err.strip().splitlines()
    assert "the gradients of steps 1 to 5 must be finite" in line and "got 2 without" in line
    stored = torch.load(broken / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 5
    assert all(t.isfinite().all() for t in stored["state_dict"].values())
    assert (broken / "backbone.ttt_shortconv.safetensors").is_file()
    assert fit(broken, *WORDS, "--ckpt_path", str(broken / "last.ckpt")) == 0
    before = learned(whole)
    steps = {int(v) for k, v in learned(broken).items() if k.endswith(".step")}
    assert steps == {4}, "two steps moved nothing, not even the optimizer's sums"
    assert before.keys() == learned(broken).keys()


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path,
    cheap: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep = Keeper.on_train_batch_end

    def interrupt(keeper: Keeper, trainer: Trainer, *rest: Any) -> None:
        keep(keeper, trainer, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "on_train_batch_end", interrupt)
    before = signal.getsignal(signal.SIGINT)
    try:
        code = fit(tmp_path, *TINY, "--save_every", "1", "--trainer.max_steps", "3")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    told = f"interrupted at step 1; with the same settings, --ckpt_path {tmp_path / 'last.ckpt'}"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_half_a_checkpoint_goes_away(tmp_path: Path, error: type[BaseException]) -> None:
    class Interrupted:
        is_global_zero, global_step = True, 1

        def save_checkpoint(self, path: Path) -> None:
            path.write_bytes(b"half")
            raise error

    (tmp_path / "last.ckpt").write_bytes(b"whole")
    keeper = Keeper(Files(tmp_path, with_backbone=True), 1, Lines())
    with pytest.raises(error):
        keeper.checkpoint(Interrupted())  # type: ignore[arg-type]
    assert [f.name for f in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == b"whole"
