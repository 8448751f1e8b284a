"""How a typed function becomes a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from vggt3 import checks
from vggt3.commands.parsing import CommandParser


@dataclasses.dataclass(frozen=True)
class Look:
    """How photos are looked at."""

    long_side: int | None = None
    """Long side in pixels; by default what the weights were trained for."""
    points_from: Literal["depth", "head"] = "depth"
    """Where points come from."""
    keep: float = 80.0
    """Share of points kept, in %."""
    names: tuple[str, ...] = ()
    """Names."""
    pair: tuple[int, int] = (1, 2)
    """Two."""

    def __post_init__(self) -> None:
        checks.require(self.keep > 0, "--keep", "be positive", self.keep)


def draw(
    photos: list[Path],
    *,
    output: Annotated[Path, "-o"],
    look: Look,
    overwrite: bool = False,
    bars: bool = True,
    attention: str = "ttt_shortconv",
    attention_options: dict[str, Any] | None = None,
) -> int:
    """Draw a scene.

    Slowly, and by hand.

    Args:
        photos: A folder, or
            some photos.
        output: Where to write.
        overwrite: Replace what is there.
        attention: The backend.
        attention_options: An option of the backend.
    """
    return 0


def show(name: str | None = None, *, mode: Literal["a", "b"] | None = None) -> None:
    """Show one thing or all.

    Args:
        name: The thing.
        mode: How.
    """


def parse(text: str, function: Callable[..., object] = draw) -> dict[str, Any]:
    return CommandParser(function, "vggt3 draw").parse(text.split())


def test_values_arrive_typed() -> None:
    given = parse("a b -o out --long-side 518 --overwrite --keep=50 --names [x,y]")
    assert given == {
        "photos": [Path("a"), Path("b")],
        "output": Path("out"),
        "look": Look(long_side=518, keep=50.0, names=("x", "y")),
        "overwrite": True,
        "bars": True,
        "attention": "ttt_shortconv",
        "attention_options": {},
    }


@pytest.mark.parametrize(
    "text",
    ["a --long-side 5 -o b", "a --long_side 5 --output b", "--output=b --long_side=5 -- a"],
)
def test_spellings(text: str) -> None:
    given = parse(text)
    assert (given["photos"], given["output"]) == ([Path("a")], Path("b"))
    assert given["look"].long_side == 5


def test_optional_positional_and_optional_choice() -> None:
    assert parse("", show) == {"name": None, "mode": None}
    assert parse("x --mode b", show) == {"name": "x", "mode": "b"}


def test_a_bundle_may_come_with_its_own_defaults() -> None:
    def dream(look: Look = Look(keep=5.0)) -> None:
        """Dream."""

    assert parse("", dream) == {"look": Look(keep=5.0)}
    assert parse("--long-side 7", dream) == {"look": Look(keep=5.0, long_side=7)}


def test_a_switch_that_is_on_by_default() -> None:
    assert parse("a -o b --bars false")["bars"] is False


def test_attention_takes_a_name_and_options() -> None:
    given = parse(
        "a -o b --attention ttt_mlp --attention.sweeps 2 --attention.rate=1e-3"
        " --attention.schedule 0-11:softmax,12-23:ttt_shortconv --attention.key-views auto"
        " --attention.exact true --attention.cap null --attention.sizes [1,2]"
    )
    assert given["attention"] == "ttt_mlp"
    assert given["attention_options"] == {
        "sweeps": 2,
        "rate": 1e-3,
        "schedule": "0-11:softmax,12-23:ttt_shortconv",
        "key_views": "auto",
        "exact": True,
        "cap": None,
        "sizes": [1, 2],
    }


def test_attention_options_need_no_name_and_may_come_first() -> None:
    given = parse("--attention.sweeps 2 a -o b")
    assert given["attention"] == "ttt_shortconv"
    assert given["attention_options"] == {"sweeps": 2}
    assert parse("a -o b")["attention_options"] == {}, "one call must not leave options behind"


def test_config_file_and_command_line(tmp_path: Path) -> None:
    config = tmp_path / "draw.yaml"
    config.write_text(
        "photos: [p]\noutput: q\nlong_side: 70\noverwrite: true\nkeep: 10\n"
        "attention: linear\nattention_options: {sweeps: 3, exact: true}\n"
    )
    given = parse(f"--config {config} --keep 20 --attention.sweeps 1")
    assert given["photos"] == [Path("p")]
    assert given["output"] == Path("q")
    assert given["look"] == Look(long_side=70, keep=20.0)
    assert given["overwrite"] is True
    assert given["attention"] == "linear"
    assert given["attention_options"] == {"sweeps": 1, "exact": True}


def test_printed_config_can_be_given_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        parse("a -o b --keep 20 --attention.sweeps 1 --print_config")
    config = tmp_path / "draw.yaml"
    config.write_text(capsys.readouterr().out)
    assert parse(f"--config {config}") == parse("a -o b --keep 20 --attention.sweeps 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-o b", "PHOTOS must be given"),
        ("a", "--output must be given"),
        ("", "PHOTOS and --output must be given"),
        ("a -o b --lonk-side 5", "(did you mean '--long-side'?)"),
        ("a -o b --lonk-side=5", "option must be one of --"),
        ("a -o b --look.keep 5", "option must be one of --"),
        ("a -o b --depth.x 5", "got '--depth.x'"),
        ("a -o b --attention. 5", "--attention. must name an option"),
        ("a -o b -x", "no such argument: -x"),
        ("a -o b c", "no such argument: c"),
        ("a -o b --overwrite=1", "--overwrite: ignored explicit argument '1'"),
        ("a -o b --long-side", "--long-side: expected one argument"),
        ("a -o b --long-side x", "--long-side must be a whole number or null, got 'x'"),
        ("a -o b --keep x", "--keep must be a number, got 'x'"),
        ("a -o b --pair 5", "--pair must be a list of 2 in brackets, each a whole number, got '5'"),
        ("a -o b --keep 0", "--keep must be positive, got 0.0"),
        (
            "a -o b --points-from dept",
            "--points-from must be one of depth, head, got 'dept' (did you mean 'depth'?)",
        ),
        ("a -o b --config absent.yaml", "--config: File does not exist"),
    ],
)
def test_usage_errors_are_one_line(text: str, message: str) -> None:
    with pytest.raises(checks.UsageError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["nonsense: 1", "keep: x", "points_from: dept", "[", "3", ""])
def test_a_bad_config_is_one_line(content: str, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(content)
    with pytest.raises(checks.UsageError) as caught:
        parse(f"--config {config}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for wanted in (
        "Draw a scene.",
        "Slowly, and by hand.",
        "A folder, or some photos.",
        "--output PATH, -o PATH Where to write. (required)",
        "--long-side N Long side in pixels;",
        "--points-from {depth,head}",
        "Share of points kept, in %. (default: 80.0)",
        "--attention NAME The backend. (default: ttt_shortconv)",
        "--attention.KEY VALUE An option of the backend.",
    ):
        assert wanted in text
    assert "attention_options" not in text
    assert "<class" not in text
