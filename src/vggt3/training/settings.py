"""The words of ``vggt3 fit``: every spelling is checked before anything is built."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vggt3 import checks

HELP = ("help", "config", "print_config")


class Names:
    """The settings that there are, such as ``data.views``."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = set(keys)
        self.groups = {key.rsplit(".", n)[0] for key in self.keys for n in range(1, 4)}

    def has(self, name: str) -> bool:
        """Whether it is one of them, holds some, or lies within one (``trainer.logger.x``)."""
        name = name.removesuffix("+")
        parents = (name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1))
        return name in self.keys or name in self.groups or any(p in self.keys for p in parents)

    def check(self, what: str, name: str, prefix: str = "") -> None:
        """Raise, with the nearest name, unless there is such a setting."""
        if self.has(name):
            return
        parent = name.rpartition(".")[0]
        every = self.keys | self.groups
        near = [key for key in every if key.rpartition(".")[0] == parent]
        close = checks.nearest(name, near) or checks.nearest(name, every)
        hint = f" (did you mean '{prefix}{close}'?)" if close else ""
        wanted = "be one of the settings that --print_config shows"
        checks.fail(what, wanted, f"'{prefix}{name}'{hint}")


def spelled(args: Sequence[str], names: Names) -> list[str]:
    """``args`` as the parser knows them: ``--train-all``, ``--attention.sweeps``, ``-o``.

    Raises:
        UsageError: an option that does not exist (names the nearest); one of nothing ('').
    """
    found: list[str] = []
    for word in args:
        checks.require(bool(word), found[-1] if found else "a word", "be something", "''")
        if not word.startswith("--"):
            found.append("--output" if word == "-o" else word)
            continue
        option, equals, value = word[2:].partition("=")
        option = option.replace("-", "_")
        if option == "data":  # the group's own name is what is learned from
            option = "data.sets"
        if option.startswith("attention."):
            option = "attention_options." + option.removeprefix("attention.")
        if option not in HELP and not option.endswith(".help"):
            names.check("option", option, "--")
        found.append(f"--{option}{equals}{value}")
    return found


SECTIONS = ("data", "learning", "loss", "optimizer", "trainer")
"""Keys of a file that have settings below them and no value of their own."""


def check_files(args: Sequence[str], names: Names) -> None:
    """Look through the files behind ``--config`` for keys that do not exist.

    Raises:
        UsageError: a key that does not exist (names the nearest), no YAML, no such file.
    """
    for n, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option in ("--config", "-c"):
            value = value if equals else next(iter(args[n + 1 :]), "")
            check_file(Path(value), names)


def read_yaml(path: Path, name: str) -> Mapping[str, Any]:
    """The settings in one YAML file; ``name`` is what an error calls the file.

    Raises:
        UsageError: no such file, no YAML, or something else than a mapping.
    """
    checks.require(path.is_file(), name, "be a YAML file", "no such file")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        checks.fail(name, "be a YAML file", " ".join(str(error).split()))
    checks.require(isinstance(content, Mapping), name, "hold settings", type(content).__name__)
    settings: Mapping[str, Any] = content
    return settings


def check_file(path: Path, names: Names) -> None:
    """Look through one file."""
    name = f"--config {path}"
    content = read_yaml(path, name)
    for key in leaves(content, names):
        names.check(f"a key of {path}", key)
    for section in SECTIONS:
        held = content.get(section)
        told = f"hold settings for {section}"
        mapped = held is None or isinstance(held, Mapping)
        checks.require(mapped, name, told, repr(held))


def leaves(content: Mapping[Any, Any], names: Names, above: str = "") -> Iterable[str]:
    """The dotted names of all settings in a file."""
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value and name not in names.keys:
            yield from leaves(value, names, f"{name}.") if names.has(name) else [name]
        else:
            yield name


KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list in brackets, such as [1,2]",
    "list": "a list in brackets, such as [1,2]",
    "dict": "pairs in braces, such as {name: 1}",
    "NoneType": "null",
}
"""Python's types in the words of an error."""


def reworded(message: str) -> str:
    """One of jsonargparse's messages on one line, in the words of the command line."""
    text = " ".join(message.split())
    broken = re.search(r'Parser key "([\w.]+)":? ?(.*)', text)
    if broken is None:
        return text
    value = re.search(r"(?:Got|Given) value(?: type)?: (.*)", text)
    wanted = re.search(r"(?:Expected a |valid subclass type|Expected )(.*?)\. (?:Got|Given)", text)
    if value is None:
        return f"--{broken[1]}: {broken[2]}"
    kind = re.search(r"<class '(\w+)'>", wanted[1]) if wanted else None
    plain = KINDS.get(kind[1]) if kind else None
    told = plain or f"of its type ({wanted[1]})" if wanted else "of its type"
    return f"--{broken[1]} must be {told}, got '{value[1]}'"
