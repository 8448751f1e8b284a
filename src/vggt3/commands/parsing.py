"""A typed function with a docstring becomes a command line.

- Parameters before ``*`` are positional arguments; those after it are options. ``list[...]``
  takes one or more positional values.
- A parameter whose type is a dataclass is a bundle: its fields are options, and the dataclass
  is made from them (so its ``__post_init__`` words the errors). ``Annotated[Look, "--data."]``
  puts ``--data.`` before each.
- The help is the docstring: "Args:" for parameters, the docstring under each dataclass field.
- ``output: Annotated[Path, "-o"]`` gives ``--output`` the second spelling ``-o``.
- ``bool`` is a switch. ``Literal["a", "b"]`` is a choice whose error names the nearest.
- A parameter ``attention: str`` beside ``attention_options: dict[str, Any]`` takes
  ``--attention NAME`` and any number of ``--attention.KEY VALUE``; values are YAML scalars.
- ``--long-side`` and ``--long_side`` are the same option. ``--config FILE.yaml`` gives any of
  them by its Python name, and the command line wins over the file.

Annotations are read when the command runs, so they must be importable (not under
``TYPE_CHECKING``) and should be light.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from vggt3 import checks

REQUIRED: Any = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Argument:
    """One thing that can be given on the command line."""

    name: str
    """Its Python name, and its key in a config file."""
    annotation: Any
    default: Any
    """``REQUIRED`` where it must be given."""
    help: str
    positional: bool = False
    aliases: tuple[str, ...] = ()
    """Further spellings, such as ``-o``."""
    bundle: str | None = None
    """The parameter whose dataclass this is a field of."""
    group: str = ""
    """What stands before its name: ``data.``."""

    @property
    def key(self) -> str:
        """What the parser and a config file call it."""
        return self.group + self.name

    @property
    def spelling(self) -> str:
        """How it is written: ``--long-side``, or ``PHOTOS`` where it is positional."""
        return self.name.upper() if self.positional else "--" + self.key.replace("_", "-")

    @property
    def plain(self) -> Any:
        """The type that the parser checks: a Literal is checked afterwards, by its choices."""
        if not self.choices:
            return self.annotation
        return str | None if NoneType in _members(self.annotation) else str

    @property
    def choices(self) -> tuple[str, ...]:
        """The values allowed where the type is a Literal, else nothing."""
        for member in _members(self.annotation):
            if typing.get_origin(member) is typing.Literal:
                return tuple(str(value) for value in typing.get_args(member))
        return ()


class _Help(DefaultHelpFormatter):
    """Help with the default behind each text, and no type: the metavar says it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required:
            return f"{text} (required)" if action.option_strings else text
        silent = action.default is None or action.default is False
        if silent or action.default in (argparse.SUPPRESS, "", (), {}):
            return text
        return f"{text} (default: %(default)s)"


class _Parser(ArgumentParser):
    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help, where the dict behind ``--name.KEY VALUE`` is shown as it is typed."""
        return re.sub(
            r"--(\w+)_options VALUE", r"--\1.KEY VALUE", super().format_help(*args, **kwargs)
        )


class CommandParser:
    """The command line of one function."""

    def __init__(self, function: Callable[..., object], prog: str) -> None:
        self._function = function
        self._bundles: dict[str, type] = {}
        self._arguments = {argument.key: argument for argument in self._describe()}
        self._with_options = {
            name for name in self._arguments if _takes_dict(self._arguments.get(f"{name}_options"))
        }
        self._parser = _Parser(
            prog=prog,
            description=_description(function),
            allow_abbrev=False,
            exit_on_error=False,
            formatter_class=_Help,
        )
        bags = {f"{name}_options" for name in self._with_options}
        for name, argument in self._arguments.items():
            if name not in bags:
                self._add(argument)
            if name in self._with_options:
                self._add_options_of(name)
        self._parser.add_argument("--config", action="config", help="A YAML file of arguments.")
        known = ["--help", "--config", "--print_config"]
        known += [
            argument.spelling
            for name, argument in self._arguments.items()
            if not argument.positional and name not in bags
        ]
        self._known = {spelling.replace("_", "-"): spelling for spelling in known}

    def parse(self, args: Sequence[str]) -> dict[str, Any]:
        """The keyword arguments to call the function with; ``--help`` prints and exits."""
        try:
            values = vars(self._parser.parse_args(self._spelled(args)).as_flat())
        except argparse.ArgumentError as error:
            raise checks.UsageError(self._reworded(error.message)) from error
        except UnicodeDecodeError as error:
            checks.fail("--config", "be a YAML file in UTF-8", error)
        keywords: dict[str, Any] = {}
        fields: dict[str, dict[str, Any]] = {name: {} for name in self._bundles}
        for key, argument in self._arguments.items():
            value = values[key]
            if argument.choices and value is not None:
                checks.choose(argument.spelling, value, argument.choices)
            target = keywords if argument.bundle is None else fields[argument.bundle]
            target[argument.name] = value
        for name, bundle in self._bundles.items():
            keywords[name] = bundle(**fields[name])
        return keywords

    def _describe(self) -> list[Argument]:
        hints = typing.get_type_hints(self._function, include_extras=True)
        helps = _helps(self._function)
        found: list[Argument] = []
        for name, parameter in inspect.signature(self._function).parameters.items():
            annotation, aliases = _without_extras(hints[name])
            if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
                self._bundles[name] = annotation
                group = next((word[2:] for word in aliases if word.endswith(".")), "")
                found += _fields(annotation, name, parameter.default, group)
                continue
            positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            text = helps.get(name, "")
            found.append(Argument(name, annotation, parameter.default, text, positional, aliases))
        names = [argument.key for argument in found]
        assert len(set(names)) == len(names), f"two arguments of one name among {names}"
        return found

    def _add(self, argument: Argument) -> None:
        settings, annotation = self._settings(argument), argument.plain
        required = argument.default is REQUIRED
        if argument.positional:
            if typing.get_origin(annotation) is list:
                (annotation,) = typing.get_args(annotation)
                settings["nargs"] = "+" if required else "*"
            elif not required:
                settings["nargs"] = "?"
            settings["metavar"] = argument.spelling
            self._parser.add_argument(argument.name, type=annotation, **settings)
            return
        spellings = (argument.spelling, *argument.aliases)
        if annotation is bool and argument.default is False:
            settings.pop("metavar")
            self._parser.add_argument(*spellings, action="store_true", **settings)
        else:
            self._parser.add_argument(*spellings, type=annotation, required=required, **settings)

    def _add_options_of(self, name: str) -> None:
        """The dict behind ``--name.KEY VALUE``; a config file holds it under its own name."""
        argument, default = self._arguments[f"{name}_options"], {}
        if argument.default not in (REQUIRED, None):
            default = dict(argument.default)
        self._parser.add_argument(
            f"--{name}_options",
            type=dict[str, Any],
            default=default,
            metavar="VALUE",
            help=argument.help or f"An option of what --{name} names.",
        )

    def _settings(self, argument: Argument) -> dict[str, Any]:
        settings = {"help": argument.help, "metavar": _metavar(argument)}
        if argument.default is not REQUIRED:
            settings["default"] = argument.default
        if argument.name in self._with_options:
            settings["metavar"] = "NAME"
        return settings

    def _spelled(self, args: Sequence[str]) -> list[str]:
        """``args`` with every long option in the spelling that the parser knows."""
        options_end = list(args).index("--") if "--" in args else len(args)
        found = [
            self._option(word) if n < options_end and word.startswith("--") else word
            for n, word in enumerate(args)
        ]
        for before, word in zip(["", *found], found, strict=False):
            name, equals, value = word.partition("=")
            if not word or (equals and not value and word.startswith("--")):
                taken = name or (before if before.startswith("-") and "=" not in before else "")
                places = [a.spelling for a in self._arguments.values() if a.positional]
                told = "be something ('.' is this folder)"
                checks.fail(taken or " or ".join(places) or "an argument", told, "''")
        return found

    def _option(self, word: str) -> str:
        name, equals, value = word.partition("=")
        known = self._known.get(name.replace("_", "-"))
        if known is not None:
            return known + equals + value
        choice, dot, key = name[2:].replace("-", "_").partition(".")
        if dot and choice in self._with_options:
            checks.require(key.isidentifier(), name, "name an option, as in --x.key value", word)
            return f"--{choice}_options.{key}{equals}{value}"
        return checks.choose("option", name, self._known.values())

    def _reworded(self, message: str) -> str:
        """One of jsonargparse's messages, on one line and in the words of the command line."""
        text = " ".join(message.split())
        missing = re.fullmatch(r"the following arguments are required: (.*)", text)
        if missing:
            names = [self._spelling(name) for name in missing[1].split(", ")]
            return f"{' and '.join(names)} must be given"
        unknown = re.fullmatch(r"unrecognized arguments: (.*)", text, re.IGNORECASE)
        if unknown:
            return f"no such argument: {unknown[1]}"
        broken = re.match(r'Parser key "([\w.]+)": ?(.*)', text)
        if broken is None:
            return text.removeprefix("argument ")
        argument = self._arguments.get(broken[1])
        value = re.search(r"(?:Got|Given) value: (.*)", text)
        if argument is None or value is None:
            return f"{self._spelling(broken[1])}: {broken[2]}"
        return f"{argument.spelling} must be {_words(argument.annotation)}, got '{value[1]}'"

    def _spelling(self, name: str) -> str:
        argument = self._arguments.get(name)
        return f"--{name}" if argument is None else argument.spelling


def _fields(bundle: type, parameter: str, example: Any, group: str) -> list[Argument]:
    """The fields of a dataclass as options; ``example`` holds their defaults, if there is one."""
    hints = typing.get_type_hints(bundle, include_extras=True)
    helps: dict[str, str] = {}
    for kind in reversed(bundle.__mro__[:-1]):
        helps |= _helps(kind)
    found = []
    for field in dataclasses.fields(bundle):
        if not field.init:
            continue
        default: Any = REQUIRED
        if example is not REQUIRED:
            default = getattr(example, field.name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        annotation, aliases = _without_extras(hints[field.name])
        words = helps.get(field.name, "")
        found.append(
            Argument(field.name, annotation, default, words, False, aliases, parameter, group)
        )
    return found


def _helps(source: Callable[..., object]) -> dict[str, str]:
    """The text about each parameter, or under each dataclass field, on one line."""
    documentation = docstring_parser.parse_from_object(source)
    return {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for parameter in documentation.params
    }


def _description(function: Callable[..., object]) -> str:
    documentation = docstring_parser.parse(inspect.getdoc(function) or "")
    parts = [documentation.short_description, documentation.long_description]
    return "\n\n".join(part for part in parts if part)


def _without_extras(annotation: Any) -> tuple[Any, tuple[str, ...]]:
    """The type in an Annotated, and the second spellings that stand beside it."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation, ()
    plain, *extras = typing.get_args(annotation)
    return plain, tuple(e for e in extras if isinstance(e, str) and e.startswith("-"))


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types in a union; the type itself where it is none."""
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _takes_dict(argument: Argument | None) -> bool:
    if argument is None:
        return False
    return any(typing.get_origin(member) is dict for member in _members(argument.annotation))


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    NoneType: "null",
}
_METAVARS = {int: "N", float: "X", bool: "BOOL", str: "TEXT", Path: "PATH"}


def _words(annotation: Any) -> str:
    """A type in the words of an error."""
    known = [_word(member) for member in _members(annotation)]
    if None not in known:
        return " or ".join(word for word in known if word)
    return str(annotation).replace("typing.", "").replace("pathlib.", "")


def _word(member: Any) -> str | None:
    """One type of a union; None where there is no word for it."""
    if typing.get_origin(member) is not tuple:
        return _WORDS.get(member)
    inner = [_WORDS.get(part) for part in typing.get_args(member) if part is not Ellipsis]
    if None in inner or len(set(inner)) != 1:
        return None
    each = str(inner[0]).removeprefix("a ")
    if Ellipsis in typing.get_args(member):
        return f"a list in brackets, each a {each}"
    return f"a list of {len(inner)} in brackets, each a {each}"


def _metavar(argument: Argument) -> str:
    """What stands for the value in the help."""
    if argument.choices:
        return "{" + ",".join(argument.choices) + "}"
    kinds = [_METAVARS.get(member, "VALUE") for member in _members(argument.annotation)]
    return kinds[0]
