"""The command ``vggt3``: which command is meant, how errors are told, how soon help comes."""

from __future__ import annotations

import errno
import importlib.util
import os
import resource
import signal
import statistics
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Literal

import pytest

from vggt3 import __version__, checks, cli

MODULE = "vggt3_commands_of_this_test"


def draw(photo: str, *, output: str) -> None:
    """Draw a scene."""


def show(name: str | None = None, *, mode: Literal["a", "b"] | None = None) -> None:
    """Show one thing or all.

    Slowly.
    """


TABLE = {
    "draw": cli.Entry(f"{MODULE}:draw", "draw a scene"),
    "group": cli.Entry(f"{MODULE}:GROUP", "do one of two things"),
    "raw": cli.Entry(f"{MODULE}:raw", "parse its own arguments", takes_argv=True),
    "fail": cli.Entry(f"{MODULE}:fail", "fail"),
}


def raw(argv: list[str]) -> int:
    print(*argv)
    return 3


def fail(kind: str) -> None:
    """Fail in the manner of KIND."""
    raise ERRORS[kind]


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


ERRORS: dict[str, BaseException] = {
    "usage": checks.UsageError("--x must be y,\n  got z"),
    "data": checks.DataError("photo.jpg must be an image, got text"),
    "plan": checks.PlanError("it must fit"),
    "interrupt": KeyboardInterrupt(),
    "memory": MemoryError(),
    "device": OutOfMemoryError("CUDA out of memory. Tried to\nallocate"),
    "host": RuntimeError("DefaultCPUAllocator: can't allocate memory: 1"),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scene/points.ply"),
    "pipe": BrokenPipeError(),
    "network": OSError("we could not connect"),
    "bug": ZeroDivisionError("division by zero"),
}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(MODULE)
    vars(module).update(draw=draw, raw=raw, fail=fail, GROUP={"draw": draw, "show": show})
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(cli, "COMMANDS", TABLE)
    monkeypatch.setattr(cli, "_abandon_stdout", lambda: None)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("usage", 2, "vggt3: --x must be y, got z\n"),
        ("data", 1, "vggt3: photo.jpg must be an image, got text\n"),
        ("plan", 1, "vggt3: it must fit\n"),
        ("interrupt", 130, "vggt3: interrupted, nothing half-written was left\n"),
        ("memory", 1, "vggt3: out of memory\n"),
        ("device", 1, "vggt3: out of memory: CUDA out of memory. Tried to\n"),
        ("host", 1, "vggt3: out of memory: DefaultCPUAllocator: can't allocate memory: 1\n"),
        ("disk", 1, "vggt3: scene/points.ply: No space left on device\n"),
        ("pipe", 141, ""),
        ("network", 1, "vggt3: we could not connect\n"),
    ],
)
def test_an_error_is_one_line(
    kind: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fail", kind]) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.usefixtures("table")
def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fail", "bug"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("vggt3: internal error, ZeroDivisionError: division by zero (--debug")
    assert told.count("\n") == 1
    for args in (
        ["--debug", "fail", "bug"],
        ["fail", "--debug", "bug"],
        ["fail", "bug", "--debug"],
    ):
        assert cli.main(args) == 1
        assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        ("drav", 2, "command must be one of draw, fail, group, raw, got 'drav' (did you mean"),
        ("--versoin", 2, "command must be one of"),
        ("draw x", 2, "--output must be given"),
        ("group", 2, "vggt3 group must be followed by one of draw, show, got nothing"),
        ("group shw", 2, "vggt3 group COMMAND must be one of draw, show, got 'shw' (did you mean"),
        ("group show --mode c", 2, "--mode must be one of a, b, got 'c'"),
        ("group show --mode a", 0, ""),
        ("draw x --output y", 0, ""),
    ],
)
def test_dispatch(args: str, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args.split()) == code
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == bool(told)


@pytest.mark.usefixtures("table")
def test_a_command_may_parse_its_own_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["raw", "--config", "x", "--no_such"]) == 3
    assert capsys.readouterr().out == "--config x --no_such\n"


@pytest.mark.usefixtures("table")
def test_help_of_all_and_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told and entry.help in told for name, entry in TABLE.items())
    assert cli.main(["group", "--help"]) == 0
    assert "show  Show one thing or all." in capsys.readouterr().out
    assert cli.main(["group", "show", "--help"]) == 0
    assert "vggt3 group show" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert "usage: vggt3" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_each_command_has_a_parser(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = cli.COMMANDS[name].target.partition(":")[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not written yet")
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: vggt3 {name}")


def run(*args: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vggt3", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **settings)


def test_version_and_the_installed_script() -> None:
    assert run("--version").stdout == f"vggt3 {__version__}\n"
    script = Path(sys.executable).with_name("vggt3")
    if not script.exists():
        pytest.skip("the package is not installed beside this interpreter")
    done = subprocess.run([script, "nothing"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("vggt3: command must be one of")


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: wall time on a busy machine measures its other tenants.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) < 0.2, seconds


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "vggt3", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize("command", ["map", "export", "evaluate", "demo", "ablate"])
def test_what_one_process_writes_is_not_started_by_several(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main([command, "x"]) == 2
    told = capsys.readouterr().err
    assert f"vggt3 {command} must be one process (reconstruct, " in told
    assert "2 of torchrun's" in told


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_kill_and_a_closed_terminal_unwind(name: str) -> None:
    number = getattr(signal, name)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(number, signal.SIG_DFL)
        assert cli.main(["--version"]) == 0
        with pytest.raises(SystemExit) as stop:
            signal.raise_signal(number)
        assert stop.value.code == 128 + number
        signal.signal(number, signal.SIG_IGN)  # as nohup does
        assert cli.main(["--version"]) == 0
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
