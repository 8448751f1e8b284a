"""Names → backends: one table of strings, open to other packages, loaded when asked for.

A package adds a backend by an entry point in the group ``vggt3.attention``::

    [project.entry-points."vggt3.attention"]
    my_backend = "my_package.my_module:MyBackend"
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType, NoneType, UnionType
from typing import Any

from vggt3 import checks
from vggt3.attention.base import Backend

GROUP = "vggt3.attention"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "softmax": "vggt3.attention.softmax:Softmax",
        "linear": "vggt3.attention.linear:Linear",
        "ttt_mlp": "vggt3.attention.ttt_mlp:TTTMLP",
        "ttt_shortconv": "vggt3.attention.ttt_shortconv:TTTShortConv",
    }
)

DEFAULT = "ttt_shortconv"

KERNEL_OPTIONS = ("kernel", "fast_kernel")
"""Options that name a kernel, and change nothing else: of every backend, plug-ins too."""


@functools.cache
def table() -> Mapping[str, str]:
    """Every registered name and the ``module:Class`` behind it, installed plug-ins included.

    A plug-in cannot replace a built-in name.
    """
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return MappingProxyType({**found, **BUILT_IN})


def origin(name: str) -> str:
    """Who brings a registered backend: vggt3, or the distribution and version of a plug-in."""
    if name in BUILT_IN:
        return "vggt3"
    dist = next(point.dist for point in entry_points(group=GROUP) if point.name == name)
    return "unknown" if dist is None else f"{dist.name} {dist.version}"


def backend_class(name: str) -> type[Backend]:
    """The class registered under ``name``.

    Raises:
        UsageError: an unknown name (lists the known ones and the nearest), or a plug-in that
            does not import or does not register a :class:`Backend`.
    """
    target = table()[checks.choose("--attention", name, table())]
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        checks.fail(f"backend {name} ({target})", "import", f"{type(error).__name__}: {error}")
    if not (isinstance(found, type) and issubclass(found, Backend)):
        checks.fail(f"backend {name} ({target})", "be a vggt3.attention.base.Backend", found)
    return found


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options of a backend: the keyword-only arguments of its ``__init__``."""
    parameters = inspect.signature(backend_class(name).__init__).parameters
    return {k: p for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def all_options(spec: LayerSpec) -> dict[str, Any]:
    """A layer's options, the defaults too: whether one was spelled out makes no difference."""
    defaults = {name: p.default for name, p in options_of(spec.name).items()}
    return {**defaults, **dict(spec.options)}


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}


def _check_value(name: str, option: str, value: Any) -> None:
    """Hold a value from the command line or a file to the option's annotation, if it is plain."""
    try:
        hints = typing.get_type_hints(backend_class(name).__init__)
    except NameError:
        return  # a plug-in annotates with names that only its type checker sees
    wanted = hints.get(option, Any)
    union = typing.get_origin(wanted) in (typing.Union, UnionType)
    members = typing.get_args(wanted) if union else (wanted,)
    if not all(member in _WORDS for member in members):
        return
    fits = type(value) in members or (type(value) is int and float in members)
    words = " or ".join(_WORDS[member] for member in members)
    checks.require(fits, f"--attention.{option}", f"be {words}", repr(value))


@dataclass(frozen=True)
class LayerSpec:
    """Which backend one layer has, and its options (plain data: it is stored in files)."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> LayerSpec:
        """The spec of options that were read from a file."""
        return cls(name, tuple(sorted(_with_tuples(options).items())))

    def build(self, width: int, heads: int, layer: int) -> Backend:
        """The module, freshly initialised."""
        return backend_class(self.name)(width, heads, layer, **dict(self.options))


def _with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, which JSON and YAML have, as tuples: a survey runs once for each distinct spec and so
    looks specs up."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def runs_of(specs: Sequence[LayerSpec]) -> list[tuple[int, int, str]]:
    """First layer, last layer and backend of each run of layers that have the same."""
    names = [spec.name for spec in specs]
    edges = [n for n, name in enumerate(names) if n == 0 or names[n - 1] != name]
    return [(a, b - 1, names[a]) for a, b in zip(edges, [*edges[1:], len(names)], strict=True)]


def _parse_schedule(text: str, layers: int) -> list[str]:
    """``'0-11:softmax,12-23:ttt_shortconv'`` → a name for each layer, each named once."""
    names: list[str | None] = [None] * layers
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*:\s*([\w.-]+)\s*", part)
        if match is None:
            checks.fail(
                "--attention.schedule", "look like 0-11:softmax,12-23:ttt_shortconv", f"'{part}'"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        checks.require(
            first <= last < layers,
            "--attention.schedule",
            f"name layers in 0..{layers - 1}",
            f"'{part.strip()}'",
        )
        for layer in range(first, last + 1):
            checks.require(
                names[layer] is None,
                "--attention.schedule",
                "name each layer once",
                f"layer {layer} twice",
            )
            names[layer] = checks.choose("--attention.schedule", match[3], table())
    missing = [layer for layer, name in enumerate(names) if name is None]
    checks.require(not missing, "--attention.schedule", "name every layer", f"none for {missing}")
    return [name for name in names if name is not None]


def plan_layers(name: str, options: Mapping[str, Any], layers: int) -> tuple[LayerSpec, ...]:
    """A backend for every global layer: one name for all, or ``options['schedule']``.

    In a schedule each option goes to the backends that have it; an option nobody has is an error.

    Raises:
        UsageError: an unknown backend or option (lists them and the nearest), a value of the
            wrong type, a bad schedule.
    """
    rest = _with_tuples({k: v for k, v in options.items() if k != "schedule"})
    schedule = options.get("schedule")
    names = [name] * layers if schedule is None else _parse_schedule(str(schedule), layers)
    known = {n: options_of(n) for n in dict.fromkeys(names)}
    every = [*dict.fromkeys(k for found in known.values() for k in found), "schedule"]
    for option in rest:
        checks.choose(f"option of {' and '.join(known)}", option, every)
        for owner in [n for n, found in known.items() if option in found]:
            _check_value(owner, option, rest[option])
    return tuple(
        LayerSpec(n, tuple(sorted((k, v) for k, v in rest.items() if k in known[n]))) for n in names
    )
