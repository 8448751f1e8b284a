"""What the pages say is true: their Python runs, and their command lines parse."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vggt3 import checks, cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+) *(?P<info>[^\n`]*)$")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its first line of text, from 1."""
    reason: str | None
    """Why it is not run, where it says ``.no-run``."""


def blocks(page: str) -> Iterator[Block]:
    lines = iter(enumerate(page.splitlines(), 1))
    for number, line in lines:
        fence = FENCE.match(line)
        if fence is None:
            continue
        indent, ticks, info = fence["indent"], fence["ticks"], fence["info"]
        inside = []
        for _, text in lines:
            if text.strip() == ticks:
                break
            inside.append(text.removeprefix(indent))
        language = re.match(r"[{\s.]*(\w*)", info)
        reason = None
        if "no-run" in info:
            stated = re.fullmatch(r'\{\.\w+ \.no-run reason="([^"]{8,})"\}', info)
            if stated is None:
                wanted = '```{.python .no-run reason="..."}'
                raise ValueError(f"line {number}: a block that is not run must say {wanted}")
            reason = stated[1]
        yield Block(language[1] if language else "", "\n".join(inside), number + 1, reason)


def commands(text: str) -> Iterator[list[str]]:
    """The words behind each ``vggt3`` of a shell block, pipes and redirections cut off."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        ends = [n for n, word in enumerate(words) if re.fullmatch(r"[|;&<>]+|\d>.*", word)]
        if words[:1] == ["vggt3"]:
            yield words[1 : min(ends, default=len(words))]


def check_command(words: list[str]) -> None:
    """Parse a command line as the user's would be, and run nothing."""
    entry = cli.COMMANDS.get(words[0]) if words else None
    if entry and importlib.util.find_spec(entry.target.partition(":")[0]) is None:
        return  # being written; the parser's own tests say so
    try:
        cli.prepare(words)
    except SystemExit as stop:
        assert stop.code == 0


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run a page in; ``photos/`` holds three small photos, and ``more/`` two others."""
    for folder in ("photos", "more"):
        (tmp_path / folder).mkdir()
    for n in range(5):
        ramp = torch.linspace(0, 255, 70 * 98).reshape(70, 98).roll(9 * n, dims=1)
        Image.fromarray(ramp.byte().numpy()).save(
            tmp_path / ("photos" if n < 3 else "more") / f"{n}.png"
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_runs(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text("utf-8")):
        if block.language in ("python", "py") and block.reason is None:
            # Blank lines in front, so that a traceback names the page's own line.
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_command_lines_parse(page: Path) -> None:
    for block in blocks(page.read_text("utf-8")):
        if block.language in ("bash", "sh", "shell", "console"):
            for words in commands(block.text):
                check_command(words)


def test_blocks_are_found() -> None:
    page = (
        '# A page\n\n```python\nx = 1\n```\n\n    ```{.bash .no-run reason="needs a GPU"}\n'
        "    vggt3 a \\\n      b\n    ```\n\n```\nplain\n```\n"
    )
    assert list(blocks(page)) == [
        Block("python", "x = 1", 4, None),
        Block("bash", "vggt3 a \\\n  b", 8, "needs a GPU"),
        Block("", "plain", 13, None),
    ]


@pytest.mark.parametrize(
    "info", ["python no-run", "{.python .no-run}", '{.python .no-run reason=""}']
)
def test_a_block_that_is_not_run_states_a_reason(info: str) -> None:
    with pytest.raises(ValueError, match="must say"):
        list(blocks(f"```{info}\nx\n```\n"))


def test_commands_are_found() -> None:
    text = "pip install vggt3\nvggt3 a 'b c' \\\n  -o d  # why\n$ vggt3 e | head -3\nvggt3 f > g"
    assert list(commands(text)) == [["a", "b c", "-o", "d"], ["e"], ["f"]]


def test_a_wrong_command_line_is_seen() -> None:
    check_command(["--help"])
    with pytest.raises(checks.UsageError):
        check_command(["reconstrukt", "photos"])
