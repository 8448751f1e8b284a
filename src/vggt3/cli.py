"""The command ``vggt3``: which command is meant, and how an error is told.

Nothing heavy is imported here, so that ``vggt3 --help`` answers at once; a command's module is
imported when that command is named.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from vggt3 import __version__, checks
from vggt3.signals import STOPS

Prepared = Callable[[], object]
"""A command with its arguments: call it to run it."""


class Entry(NamedTuple):
    """A row of the table of commands."""

    target: str
    """``module:name`` of a typed function, or of a dict of them (a command with subcommands)."""
    help: str
    """What it does, in one line."""
    takes_argv: bool = False
    """The target parses its own arguments: it is called with the list of them."""
    shared: bool = False
    """Several processes of torchrun may do it together."""


COMMANDS: Mapping[str, Entry] = {
    "reconstruct": Entry(
        "vggt3.commands.reconstruct:reconstruct",
        "turn photos or a video into cameras, depth maps and a point cloud",
        shared=True,
    ),
    "export": Entry(
        "vggt3.commands.export:export",
        "write a scene for COLMAP, nerfstudio or as GLB",
    ),
    "map": Entry(
        "vggt3.commands.map_scene:map_scene",
        "turn photos into a scene file that further photos can be localised in",
    ),
    "localize": Entry(
        "vggt3.commands.localize:localize",
        "find where photos were taken from in a mapped scene",
    ),
    "extend": Entry(
        "vggt3.commands.extend:extend",
        "add photos to a mapped scene",
    ),
    "demo": Entry(
        "vggt3.commands.demo:demo",
        "photograph a procedural room and reconstruct it on the CPU",
    ),
    "data": Entry(
        "vggt3.commands.data:SUBCOMMANDS",
        "write procedural scenes with their ground truth",
    ),
    "fit": Entry(
        "vggt3.training.cli:fit",
        "train global attention on procedural scenes or data sets",
        takes_argv=True,
    ),
    "validate": Entry(
        "vggt3.training.cli:validate",
        "score a model on held-out scenes",
        takes_argv=True,
    ),
    "test": Entry(
        "vggt3.training.cli:test",
        "score a model on procedural scenes that no fit has seen",
        takes_argv=True,
    ),
    "predict": Entry(
        "vggt3.training.cli:predict",
        "write a model's cameras and depth of procedural scenes beside the truth",
        takes_argv=True,
    ),
    "evaluate": Entry(
        "vggt3.commands.evaluate:SUBCOMMANDS",
        "score a model by one of the field's protocols or an exam; compare two runs",
    ),
    "benchmark": Entry(
        "vggt3.commands.benchmark:benchmark",
        "measure time, memory and operations of every backend and number of views",
        shared=True,
    ),
    "ablate": Entry(
        "vggt3.commands.ablate:ablate",
        "train and score many adapters on one backbone, in one table and one plot",
    ),
    "attention": Entry(
        "vggt3.commands.attention:attention",
        "list the attention backends, what they cost and which kernels run here",
    ),
    "weights": Entry(
        "vggt3.commands.weights:SUBCOMMANDS",
        "import, inspect and split weights",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    end = args.index("--") if "--" in args else len(args)
    debug = "--debug" in args[:end]
    args = [word for word in args[:end] if word != "--debug"] + args[end:]
    _end_in_order()
    try:
        result = prepare(args)()
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        message, code = explain(error)
        if isinstance(error, BrokenPipeError):
            _abandon_stdout()
        elif debug:
            traceback.print_exc()
        if message:
            _tell(message)
        return code
    return result if isinstance(result, int) else 0


def _tell(message: str) -> None:
    """Print one line about an error; of torchrun's processes only the first, if all say it."""
    tell = partial(print, "vggt3: " + " ".join(message.split()), file=sys.stderr, flush=True)
    if os.environ.get("WORLD_SIZE", "1") in ("", "1"):
        tell()
        return
    from vggt3.distributed import told_once

    told_once(message, tell)


def _end_in_order() -> None:
    """A polite kill and a closed terminal unwind like Ctrl-C, so that half-written folders go away
    with it; what is ignored (by nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in STOPS:
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


def prepare(args: Sequence[str]) -> Prepared:
    """Find the command and parse its arguments, without running it."""
    if not args:
        return partial(_show, help_text(), sys.stderr, 2)
    name, *rest = args
    if name in ("-h", "--help"):
        return partial(_show, help_text(), sys.stdout, 0)
    if name == "--version":
        return partial(_show, f"vggt3 {__version__}", sys.stdout, 0)
    entry = COMMANDS[checks.choose("command", name, COMMANDS)]
    target, prog = _load(entry.target), f"vggt3 {name}"
    if entry.takes_argv:
        return partial(target, rest)
    if not entry.shared:
        _check_alone(prog)
    if isinstance(target, Mapping):
        if rest[:1] in (["-h"], ["--help"]):
            return partial(_show, _group_help(prog, entry, target), sys.stdout, 0)
        listed = ", ".join(target)
        checks.require(bool(rest), prog, f"be followed by one of {listed}", "nothing")
        target = target[checks.choose(f"{prog} COMMAND", rest[0], target)]
        prog, rest = f"{prog} {rest[0]}", rest[1:]
    from vggt3.commands.parsing import CommandParser

    return partial(target, **CommandParser(target, prog).parse(rest))


def _check_alone(prog: str) -> None:
    """Raise UsageError where torchrun started several processes: each would write the same."""
    started = os.environ.get("WORLD_SIZE", "1")
    shared = [name for name, entry in COMMANDS.items() if entry.shared or entry.takes_argv]
    told = f"be one process ({', '.join(shared)} are what several share)"
    checks.require(started in ("", "1"), prog, told, f"{started} of torchrun's")


def help_text() -> str:
    """The text of ``vggt3 --help``."""
    rows = _rows({name: entry.help for name, entry in COMMANDS.items()})
    return f"""usage: vggt3 COMMAND [ARGUMENTS]

Photos in, scene out: 3D reconstruction whose cost is linear in the photos.

commands:
{rows}

options:
{
        _rows(
            {
                "--help": "this text; after a command, what that command takes",
                "--version": "the version",
                "--debug": "after a command: show where an error arose",
            }
        )
    }"""


def explain(error: BaseException) -> tuple[str, int]:
    """One line about an error ('' for none), and the exit code."""
    if isinstance(error, checks.InputError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted, nothing half-written was left", 130
    if isinstance(error, BrokenPipeError):
        return "", 141
    if _is_out_of_memory(error):
        detail = str(error).partition("\n")[0]
        return f"out of memory{': ' + detail if detail else ''}", 1
    if isinstance(error, OSError):
        named = error.filename is not None and error.strerror is not None
        return f"{error.filename}: {error.strerror}" if named else str(error), 1
    about = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"internal error, {about} (--debug shows where; please report it)", 1


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's, an accelerator's and the CPU allocator's, without importing torch."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    return "RuntimeError" in names and "can't allocate memory" in str(error)


def _abandon_stdout() -> None:
    """Nobody reads any more: keep the interpreter from complaining when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _show(text: str, stream: Any, code: int) -> int:
    print(text, file=stream)
    return code


def _group_help(prog: str, entry: Entry, functions: Mapping[str, Callable[..., object]]) -> str:
    rows = _rows({name: _first_line(function) for name, function in functions.items()})
    about = entry.help[0].upper() + entry.help[1:]
    return f"usage: {prog} COMMAND [ARGUMENTS]\n\n{about}.\n\ncommands:\n{rows}"


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _rows(texts: Mapping[str, str]) -> str:
    width = max(map(len, texts), default=0)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in texts.items())
