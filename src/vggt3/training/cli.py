"""``vggt3 fit | validate | test | predict``: Lightning's command line around a :class:`Fitting`.

The settings are groups of plain dataclasses; weights and attention stand at the top level, as in
every other command. A checkpoint contributes tensors and facts, never settings or classes.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only

from vggt3 import checks
from vggt3.attention.registry import DEFAULT
from vggt3.losses import LossWeights
from vggt3.model import opening
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import LoadedModel
from vggt3.training import checkpoints, settings, sharding
from vggt3.training.curriculum import parse_recipes
from vggt3.training.data import ProceduralData
from vggt3.training.defaults import ABOUT, TRAINER, machine_defaults
from vggt3.training.fit import Fitting
from vggt3.training.keeping import PREDICTIONS, Files, Keeper, Lines, Predictions
from vggt3.training.mixture import read_sets
from vggt3.training.module import LearningOptions
from vggt3.training.optimizer import OptimizerOptions
from vggt3.training.progress import Bar
from vggt3.training.scenes import SceneOptions
from vggt3.training.sequence import SharedFitting
from vggt3.training.teacher import Teacher, softmax_teacher

FITTING = "have settings that fit together"


class FitCLI(LightningCLI):
    """Parses, and builds module, data and trainer; :meth:`run` does what was asked."""

    def __init__(self, command: str, args: Sequence[str]) -> None:
        self.command = command
        set_parsing_settings(docstring_parse_attribute_docstrings=True)  # they are the help
        super().__init__(
            Fitting,
            ProceduralData,
            save_config_callback=SaveConfigCallback if command == "fit" else None,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=dict(TRAINER),
            seed_everything_default=False,
            parser_kwargs={
                "prog": f"vggt3 {command}",
                "description": ABOUT[command],
                "exit_on_error": False,
                "allow_abbrev": False,
            },
            args=list(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What stands at the top level."""
        super().add_default_arguments_to_parser(parser)
        parser.add_class_arguments(ModelChoice, None, instantiate=False)
        add = parser.add_argument
        usual = {"fit": "fits/BACKEND", "predict": "predict/BACKEND"}
        told = usual.get(self.command, "nothing is written")
        add("--output", "-o", type=Path | None, help=f"Folder to write (default: {told}).")
        add("--overwrite", action="store_true", help="Replace what an earlier fit left there.")
        add("--ckpt_path", type=Path | None, help="Go on from this checkpoint (last.ckpt).")
        add("--train_all", action="store_true", help="Let all but the encoder learn.")
        told = "What new attention begins from: softmax (its qkv and proj), or scratch (random)."
        add("--start", type=str, default="softmax", help=told)
        told = "Neighbouring processes that share each scene's views; -1 is all of them."
        add("--share_views", type=int, default=1, help=told)
        add("--tensorboard", action="store_true", help="Log for TensorBoard too.")
        add("--report_every", type=int, default=10, help="Steps between printed lines.")
        add("--save_every", type=int, default=100, help="Steps between checkpoints.")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The groups."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.add_class_arguments(SceneOptions, "data")
        parser.add_class_arguments(LearningOptions, "learning")
        parser.add_class_arguments(OptimizerOptions, "optimizer")
        parser.add_class_arguments(LossWeights, "loss")
        parser.set_defaults({f"trainer.{k}": v for k, v in self.trainer_defaults.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The defaults of this machine."""
        parser.set_defaults(machine_defaults())

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; an error is one line that names the option."""
        names = settings.Names([*parser.get_defaults().keys(), "config", "trainer.callbacks"])
        try:
            words = settings.spelled(args, names)
            settings.check_files(words, names)
            self.config = parser.parse_args(words)
        except argparse.ArgumentError as error:
            raise checks.UsageError(settings.reworded(error.message or str(error))) from error

    def _parse_ckpt_path(self) -> None:
        """A checkpoint's hyperparameters are no settings: nothing of them is parsed."""

    def instantiate_classes(self) -> None:
        """Model, data and trainer."""
        # jsonargparse renamed it; both names are in the range of versions that we take.
        build = getattr(self.parser, "instantiate", None) or self.parser.instantiate_classes
        self.config_init = build(self.config)
        given = self.config_init
        names = [field.name for field in fields(ModelChoice)]
        self.choice = ModelChoice(**{name: given[name] for name in names})
        self.scenes: SceneOptions = given.data
        look, textures = self.scenes.dressed()
        for line in [] if textures is None else textures.notes():
            note(line)
        self.resumed = None
        if given.ckpt_path is not None:
            self.resumed = checkpoints.read(given.ckpt_path)
            self.choice = checkpoints.continued(self.choice, self.resumed)
        elif given.train_all and self.choice.attention is None:
            self.choice = replace(self.choice, attention="softmax")
        self.output = self._output(given.output, given.ckpt_path)
        self.loaded = self._model()
        learning: LearningOptions = given.learning
        self._check_together()
        if given.train_all:
            learning = replace(learning, train="all")
        self.model = self._module(learning)
        read = read_sets(self.scenes.mixture(), self.scenes.covisibility, self.scenes.cache)
        if read is not None:
            told = "be 0 where data sets are read: what has no depth there may be a surface"
            fit = given.loss.sky == 0 or self.command != "fit"
            checks.require(fit, "--loss.sky", told, given.loss.sky)
            both = f"{self.scenes.recipe},{self.scenes.counts().val_recipe}"
            for line in read.check(parse_recipes(both), note):
                note(line)
        bank = textures and textures.bank
        self.datamodule = ProceduralData(self.scenes.counts(), look, bank, read)
        whole = learning.train != "adapter" or self.choice.preset is not None
        self.files = Files(self.output, whole)
        self._call_back()
        options = {**self._logging(), "enable_progress_bar": self._bar()}
        try:
            self.trainer = self.instantiate_trainer(**options)
        except (ValueError, TypeError, MisconfigurationException) as error:
            checks.fail("--trainer", FITTING, f"'{error}'")
        self.model.sharing = self.datamodule.sharing = self._sharing(given.share_views)

    def _check_together(self) -> None:
        """Refuse settings that would do nothing."""
        given, trainer, fits = self.config_init, self.config_init.trainer, self.command == "fit"
        for name, idle, wanted, got in (
            ("--train_all", given.train_all and given.learning.train == "encoder",
             "stand without --learning.train encoder, which is more", "both"),
            ("--optimizer.lr_encoder", given.learning.train != "encoder"
             and given.optimizer.lr_encoder != OptimizerOptions.lr_encoder,
             "stand beside --learning.train encoder", given.optimizer.lr_encoder),
            ("--trainer.gradient_clip_val", trainer.gradient_clip_val is not None,
             "be left out: --optimizer.clip is the longest gradient", trainer.gradient_clip_val),
            ("--trainer.gradient_clip_algorithm", trainer.gradient_clip_algorithm is not None,
             "be left out: norms are clipped (--optimizer.clip)", trainer.gradient_clip_algorithm),
            ("--tensorboard", given.tensorboard and trainer.logger not in (None, True),
             "stand without --trainer.logger", trainer.logger),
            ("--tensorboard", given.tensorboard and not fits, "stand in a fit", self.command),
            ("--start", given.start != "softmax" and not fits and self.resumed is None,
             "stand in a fit", self.command),
        ):  # fmt: skip
            checks.require(not idle, name, wanted, got)

    def _module(self, learning: LearningOptions) -> Fitting:
        """What learns, perhaps from a teacher."""
        given = self.config_init
        shares = given.share_views != 1
        checks.require(
            learning.dense_every == 1 or not shares,
            "--share-views",
            "stand beside --learning.dense_every 1",
            learning.dense_every,
        )
        kind, teacher = SharedFitting if shares else Fitting, self._teacher(learning, shares)
        options = learning, given.optimizer, given.loss, self.choice.seed, teacher
        return kind(self.loaded, *options)

    def _call_back(self) -> None:
        """What is said and kept on the way."""
        given = self.config_init
        logged = self.command == "fit" or given.output is not None
        self.lines = Lines(given.report_every, self.output / "log.txt" if logged else None)
        callbacks: list[Callback] = [self.lines]
        if self.command == "fit":
            callbacks.append(Keeper(self.files, given.save_every, self.lines))
        if self.command == "predict":
            callbacks.append(Predictions(self.output))
        self.trainer_defaults["callbacks"] = callbacks

    def _sharing(self, wanted: int) -> int:
        """The processes that share a scene."""
        processes = self.trainer.num_devices * self.trainer.num_nodes
        sharing = processes if wanted == -1 else wanted
        told = f"be -1 or divide the number of processes, {processes}"
        checks.require(sharing > 0 and processes % sharing == 0, "--share-views", told, wanted)
        return sharing

    def _output(self, named: Path | None, ckpt_path: Path | None) -> Path:
        if named is not None:
            return named
        if ckpt_path is not None:
            return ckpt_path.parent
        folder = "fits" if self.command == "fit" else self.command
        return Path(folder) / (self.choice.attention or DEFAULT)

    def _model(self) -> LoadedModel:
        start = checks.choose("--start", self.config_init.start, ("softmax", "scratch"))
        if self.command == "fit" or self.resumed is not None:
            loaded = opening.start_model(self.choice, scratch=start == "scratch")
        else:
            loaded = opening.open_model(self.choice)
        encoder = opening.SHIPPED / f"{self.choice.preset}.encoder{opening.SUFFIX}"
        if self.choice.preset is not None and encoder.is_file():
            tensors = opening.encoder_tensors(self.choice.preset)
            loaded.model.load_state_dict(tensors, strict=False)
        return loaded

    def _teacher(self, learning: LearningOptions, shares: bool) -> Teacher | None:
        """The backbone with its softmax attention, where the fit is to learn from it."""
        if learning.teacher == 0 or self.command != "fit":
            return None
        told = "stand without --share-views and --preset"
        odd = "--share-views" if shares else "--preset" if self.choice.preset else None
        checks.require(odd is None, "--learning.teacher", told, f"with {odd}")
        return softmax_teacher(self.choice.weights)

    def _bar(self) -> bool:
        """Whether there is a progress bar: ours, unless ``trainer.callbacks`` brings one."""
        trainer = self.config_init.trainer
        wanted: bool | None = trainer.enable_progress_bar
        shown = sys.stdout.isatty() if wanted is None else wanted
        if shown and not any(isinstance(c, ProgressBar) for c in trainer.callbacks or []):
            self.lines.bar = Bar()
            self.trainer_defaults["callbacks"].append(self.lines.bar)
        return shown

    def _logging(self) -> dict[str, Any]:
        wanted = self.config_init.trainer.logger
        kept: dict[str, Any] = {"default_root_dir": str(self.output)}
        if wanted not in (None, True):
            return {**kept, "logger": wanted}
        if self.command != "fit":
            return {**kept, "logger": False}
        loggers: list[Logger] = [CSVLogger(self.output, name="logs")]
        if self.config_init.tensorboard:
            try:
                from lightning.pytorch.loggers import TensorBoardLogger

                loggers.append(TensorBoardLogger(self.output, name="tensorboard"))
            except ModuleNotFoundError as error:
                told = "find TensorBoard (pip install 'vggt3[train]')"
                raise checks.UsageError(f"--tensorboard must {told}, got none") from error
        return {**kept, "logger": loggers}

    def check_output(self) -> None:
        """Refuse a fit of no steps, and to write over an earlier fit by accident.

        Raises:
            UsageError: no steps; there is a checkpoint or a trained file, and nothing says to go
                on or to replace it.
        """
        steps, told = self.trainer.max_steps, "be above 0, or -1 for no end"
        checks.require(steps != 0, "--trainer.max_steps", told, steps)
        last = self.files.last()
        fresh = self.resumed is None and not self.config_init.overwrite
        there = [path.name for path in self.files.all(self.model) if path.exists()]
        if fresh and self.trainer.is_global_zero and there:
            goes_on = f"--ckpt_path {last} goes on, " if last.exists() else ""
            checks.fail(
                f"--output {self.output}",
                f"hold no earlier fit ({goes_on}--overwrite starts over)",
                ", ".join(there),
            )
        self.output.mkdir(parents=True, exist_ok=True)

    def check_predictions(self) -> None:
        """Refuse to mix two runs' predictions; with ``--overwrite`` the earlier ones go.

        Raises:
            UsageError: there are some, or something else is in their place.
        """
        if not self.trainer.is_global_zero:
            return
        folder = self.output / PREDICTIONS
        there = sorted(folder.iterdir()) if folder.is_dir() else [folder] * folder.exists()
        ours = all(path.match("batch-*.safetensors") for path in there)
        if there and not (ours and self.config_init.overwrite):
            wanted = "hold no earlier predictions (--overwrite replaces them)"
            found = f"{len(there)}, such as {there[0].name}"
            checks.fail(f"--output {folder}", wanted, found)
        for path in there:
            path.unlink()

    def run(self) -> None:
        """Fit, validate, test or predict."""
        ckpt_path = self.config_init.ckpt_path
        if self.resumed is not None:
            ours = self.model.facts(self.datamodule.described)
            told = checkpoints.check_continues(ckpt_path, self.resumed, ours)
            if self.command == "fit":
                method, spread = self.model.optimizing.method, sharding.wanted(self.trainer)
                checkpoints.check_moves(ckpt_path, self.resumed, method, spread)
            if told:
                print(f"vggt3: note: {told}", file=sys.stderr)
        path = None if ckpt_path is None else str(ckpt_path)
        if self.command == "fit":
            self.check_output()
            self.fit(path)
            return
        call = getattr(self.trainer, self.command)
        options: dict[str, Any] = {"verbose": False}
        if self.command == "predict":
            self.check_predictions()
            options = {"return_predictions": False}
        call(self.model, self.datamodule, ckpt_path=path, weights_only=True, **options)
        if self.command == "predict" and self.trainer.is_global_zero:
            print(f"written: {self.output / PREDICTIONS}")

    def fit(self, ckpt_path: str | None) -> None:
        """Train, validate, and say how to use what was trained."""
        if self.scenes.recipes is None and self.scenes.rounded != tuple(self.scenes.size):
            self.lines.say(f"--data.size {self.scenes.size} rounded to {self.scenes.rounded}")
        steps = self.trainer.max_steps
        if self.resumed is not None:
            done, ahead = self.resumed.step, f"of {steps}" if steps > 0 else "without an end"
            left = "nothing is left to do" if 0 < steps <= done else f"goes on, {ahead}"
            self.lines.say(f"{ckpt_path} is of step {done}: {left}")
        self.trainer.fit(self.model, self.datamodule, ckpt_path=ckpt_path, weights_only=True)
        if self.trainer.limit_val_batches and self.lines.validated != self.trainer.global_step:
            self.trainer.validate(self.model, self.datamodule, verbose=False)
        self.lines.say(f"written: {self.files.adapter(self.model)}")
        self.lines.say(f"use it: {self.files.use(self.model, self.choice.weights)}")


@rank_zero_only
def note(text: str) -> None:
    """Say something on stderr, once of all processes."""
    print(f"vggt3: note: {text}", file=sys.stderr)


def start(command: str, args: Sequence[str]) -> None:
    """Parse and run; Lightning's own complaints become one line."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")
    # A process without a scene of its own; views that nobody writes to in place.
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    made = None
    try:
        made = FitCLI(command, args)
        made.run()
    except MisconfigurationException as error:
        checks.fail("--trainer", FITTING, f"'{error}'")
    except SystemExit:
        if made is not None and made.trainer.interrupted:  # Lightning's own code for it is 1
            raise SystemExit(130) from None
        raise


def fit(args: Sequence[str]) -> None:
    """Train global attention."""
    start("fit", args)


def validate(args: Sequence[str]) -> None:
    """Score on held-out scenes."""
    start("validate", args)


def test(args: Sequence[str]) -> None:
    """Score on scenes that no fit and no validation sees."""
    start("test", args)


def predict(args: Sequence[str]) -> None:
    """Write predictions of the held-out scenes."""
    start("predict", args)
