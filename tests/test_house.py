"""The limits of STYLE.md: sizes, names, and no device that is written down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "vggt3"
MODULES = sorted(SOURCE.rglob("*.py"))

MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_COLUMNS = 100
MOST_PARAMETERS = 7
ROOMS_WITHOUT_A_SUBJECT = {"utils", "util", "common", "helpers", "helper", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def parameters(function: Function) -> list[str]:
    given = function.args
    # A module's keyword-only settings are its options, like the fields of a config.
    options = [] if function.name == "__init__" else given.kwonlyargs
    names = [a.arg for a in (*given.posonlyargs, *given.args, *options)]
    return [name for n, name in enumerate(names) if n or name not in ("self", "cls")]


def is_public(function: Function) -> bool:
    dunder = function.name.startswith("__") and function.name.endswith("__")
    return dunder or not function.name.startswith("_")


def is_kernel(function: Function) -> bool:
    """Written for another compiler, which takes every pointer and stride as a parameter."""
    return any(ast.unparse(d).endswith("jit") for d in function.decorator_list)


def is_cuda(node: ast.expr | None) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, str) and re.fullmatch(r"cuda(:\d+)?", value) is not None


def devices(tree: ast.AST) -> Iterator[int]:
    """Lines that name a CUDA device. Comparing with a device's type is no naming."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            if any(is_cuda(default) for default in defaults):
                yield node.lineno
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        by_keyword = any(k.arg == "device" and is_cuda(k.value) for k in node.keywords)
        by_place = name in ("device", "to") and any(is_cuda(a) for a in node.args)
        if name == "cuda" or by_keyword or by_place:
            yield node.lineno


def undocumented(tree: ast.AST) -> Iterator[str]:
    """Public methods without a docstring, in classes that inherit none."""
    for cls in ast.walk(tree):
        if not isinstance(cls, ast.ClassDef) or cls.bases or cls.name.startswith("_"):
            continue
        for item in cls.body:
            if isinstance(item, Function) and not item.name.startswith("_"):
                missing = ast.get_docstring(item) is None
                yield from [f"{cls.name}.{item.name}: no docstring"] * missing


def test_the_package_is_found() -> None:
    assert len(MODULES) > 5


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_module(path: Path) -> None:
    text = path.read_text("utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    found = []
    if len(lines) > MOST_LINES:
        found.append(f"{len(lines)} lines")
    found += [f"line {n}: too long" for n, x in enumerate(lines, 1) if len(x) > MOST_COLUMNS]
    found += [
        f"line {n}: a promise without a link"
        for n, x in enumerate(lines, 1)
        if re.search(r"\b(TODO|FIXME|XXX)\b", x) and "http" not in x
    ]
    for function in functions(tree):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MOST_LINES_OF_A_FUNCTION:
            found.append(f"{function.name}: {length} lines")
        # A command's parameters are its options; the user types the two that matter.
        exempt = path.parent.name == "commands" or is_kernel(function)
        if is_public(function) and not exempt and len(parameters(function)) > MOST_PARAMETERS:
            found.append(f"{function.name}: {len(parameters(function))} parameters")
    found += [f"line {n}: a device is written down" for n in devices(tree)]
    found += undocumented(tree)
    assert found == []


def test_every_room_has_a_subject() -> None:
    rooms = {part for path in MODULES for part in path.relative_to(SOURCE).with_suffix("").parts}
    assert not rooms & ROOMS_WITHOUT_A_SUBJECT


@pytest.mark.parametrize(
    "text",
    [
        "model.cuda()",
        "x.to('cuda')",
        "x.to('cuda:1', dtype)",
        "torch.device('cuda')",
        "torch.zeros(3, device='cuda')",
        "def f(device='cuda'): ...",
        "def f(*, device='cuda:0'): ...",
    ],
)
def test_a_written_device_is_seen(text: str) -> None:
    assert list(devices(ast.parse(text))) == [1]


@pytest.mark.parametrize(
    "text",
    ["x.device.type == 'cuda'", "torch.cuda.is_available()", "x.to(device)", "f(kind='cuda')"],
)
def test_asking_about_a_device_is_no_naming(text: str) -> None:
    assert list(devices(ast.parse(text))) == []


def test_memory_that_nobody_wrote_is_loud() -> None:
    for made in (torch.empty(3), torch.empty_like(torch.ones(3)), torch.ones(3).new_empty(3)):
        assert made.isnan().all()
    assert torch.empty(3, dtype=torch.bfloat16).isnan().all()
