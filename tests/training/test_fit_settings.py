"""The command lines of the training page parse; ``--attention`` and its options arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_docs import ROOT, blocks, commands
from vggt3 import cli
from vggt3.checks import UsageError
from vggt3.training import cli as training_cli
from vggt3.training.cli import FitCLI
from vggt3.training.defaults import ABOUT
from vggt3.training.settings import Names, spelled

PAGE = (ROOT / "docs" / "training.md").read_text("utf-8")
LINES = [
    words
    for block in blocks(PAGE)
    if block.language == "bash"
    for words in commands(block.text)
    if words[0] in ABOUT
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_the_page_s_commands_parse(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(FitCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(FitCLI, "run", lambda self: None)
    monkeypatch.chdir(tmp_path)
    if "--config" in words:
        file = Path(words[words.index("--config") + 1])
        file.parent.mkdir(parents=True)
        file.write_text("data: {views: 5}\n" if "fits" in file.parts else (ROOT / file).read_text())
    assert cli.main(words) == 0


def test_options_of_the_backend_arrive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FitCLI, "instantiate_classes", lambda self: None)
    file = tmp_path / "fit.yaml"
    file.write_text("attention: linear\nattention_options: {sweeps: 3}\ndata: {views: 5}\n")
    words = ["--config", str(file), "--attention", "ttt_mlp", "--attention.hidden", "8"]
    config = FitCLI("fit", [*words, "--train-all", "--data.seed=4"]).config
    assert config.attention == "ttt_mlp"
    assert config.attention_options == {"sweeps": 3, "hidden": 8}
    assert config.train_all and config.data.views == 5 and config.data.seed == 4


def test_spellings() -> None:
    names = Names(["train_all", "trainer.max_steps", "trainer.logger", "attention_options"])
    words = ["--train-all", "--trainer.max-steps=3", "--trainer.logger.init_args.x", "-o", "a-b"]
    assert spelled(words, names) == [
        "--train_all",
        "--trainer.max_steps=3",
        "--trainer.logger.init_args.x",
        "--output",
        "a-b",
    ]
    with pytest.raises(UsageError, match=r"did you mean '--train_all'"):
        spelled(["--trainall"], names)


def test_every_command_is_described() -> None:
    for command in ABOUT:
        assert cli.COMMANDS[command].takes_argv
        assert hasattr(training_cli, command)
