"""``vggt3 attention``: the backends, what they cost, and the kernels that run here."""

from __future__ import annotations

import dataclasses
import json as json_format
from collections.abc import Iterator
from typing import Any

import torch
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vggt3.attention.cost import Cost, Report, Sizes, reports
from vggt3.attention.kernels import fast_weights
from vggt3.attention.kernels.softmax import KERNELS, Call, choose
from vggt3.attention.registry import DEFAULT
from vggt3.model.config import VGGT_1B

GRID = (28, 37)
"""Patches of a photo of 392×518 pixels."""
VIEWS = (100, 1000)
HEAD_WIDTH = VGGT_1B.width // VGGT_1B.heads


def attention(*, json: bool = False) -> None:
    """List the attention backends, what they cost and which kernels run here.

    Costs are of one global layer of vggt_1b on photos of 392×518 pixels, counted by running the
    layer without values; backends of other packages are counted in the same way.

    Args:
        json: Print JSON instead of tables.
    """
    sizes = Sizes(VGGT_1B.width, VGGT_1B.heads, VGGT_1B.special, GRID)
    found, kernels = reports(sizes, VIEWS), kernel_survey(here())
    memories = fast_weight_survey(here())
    if json:
        backends = [dataclasses.asdict(report) for report in found]
        told = {"backends": backends, "kernels": kernels, "fast_weight_kernels": memories}
        print(json_format.dumps(told, indent=2, default=str))
        return
    console = Console()
    console.print(_cost_table(found))
    for paragraph in (paragraph for report in found for paragraph in _about(report)):
        console.print(paragraph)
    console.print()
    console.print(_kernel_table(kernels))
    for kind, about in (("", "auto"), (" with token weights", "auto_weighted")):
        chosen = kernels[about]
        console.print(f"auto{kind}: {chosen['kernel']}, the {chosen['reason']}", highlight=False)
    console.print()
    console.print(_fast_weight_table(memories))
    chosen = memories["auto"]
    console.print(f"auto: {chosen['kernel']}, the {chosen['reason']}", highlight=False)


def here() -> torch.device:
    """The accelerator of this machine, else its processor."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if accelerator is None else accelerator


def kernel_survey(device: torch.device) -> dict[str, Any]:
    """For each kernel, why it cannot run a vggt_1b layer on ``device`` (null where it can)."""
    plain = Call(device, torch.bfloat16, HEAD_WIDTH)
    weighted = dataclasses.replace(plain, masked=True)
    survey: dict[str, Any] = {"device": device.type, "dtype": "bfloat16"}
    for about, call in (("auto", plain), ("auto_weighted", weighted)):
        kernel, reason = choose("auto", call)
        survey[about] = {"kernel": kernel.name, "reason": reason}
    survey["why_not"] = {name: kernel.why_not(plain) for name, kernel in KERNELS.items()}
    survey["why_not_weighted"] = {
        name: kernel.why_not(weighted) for name, kernel in KERNELS.items()
    }
    return survey


def fast_weight_survey(device: torch.device) -> dict[str, Any]:
    """The kernels of ttt_mlp and ttt_shortconv, as :func:`kernel_survey`, without gradients."""
    call = fast_weights.Call(device, torch.bfloat16, HEAD_WIDTH, 4 * HEAD_WIDTH)
    chosen, reason = fast_weights.choose("auto", call)
    return {
        "device": device.type,
        "dtype": "bfloat16",
        "auto": {"kernel": chosen, "reason": reason},
        "why_not": {"torch": None, "triton": fast_weights.why_not_triton(call)},
    }


def _cost_table(found: list[Report]) -> Table:
    table = Table(title="one global layer of vggt_1b, photos of 392×518", title_justify="left")
    table.add_column("backend", no_wrap=True)
    for views in VIEWS:
        table.add_column(f"GFLOP a\nview of\n{views}", justify="right")
    for views in VIEWS:
        table.add_column(f"state of\n{views}", justify="right")
    for title in ("linear", "bounded"):
        table.add_column(title)
    for report in found:
        if report.problem is None:
            cells = [f"{cost.gflops_per_view:,.1f}" for cost in report.costs]
            cells += [_bytes(cost) for cost in report.costs]
            cells += ["yes" if told else "no" for told in (report.linear, report.bounded)]
            table.add_row(report.name, *cells)
        else:
            table.add_row(report.name, *["-"] * 6)
    return table


def _about(report: Report) -> Iterator[Padding]:
    """What it is, where it comes from, its options: one indented paragraph each."""
    default = " (the default)" if report.name == DEFAULT else ""
    yield _indented(f"{report.name}: {report.problem or report.summary}{default}", 0)
    if report.origin != "vggt3":
        yield _indented(f"from {report.origin}", 4)
    for option in report.options:
        value = "null" if option.default is None else option.default
        yield _indented(f"--attention.{option.name} {value}", 4)
        if option.about:
            yield _indented(option.about, 8)


def _indented(text: str, columns: int) -> Padding:
    return Padding(Text(text), (0, 0, 0, columns), expand=False)


def _kernel_table(kernels: dict[str, Any]) -> Table:
    title = f"kernels of softmax on {kernels['device']}, {kernels['dtype']}"
    table = Table("kernel", "runs here", title=title, title_justify="left")
    for name, reason in kernels["why_not"].items():
        weighted = kernels["why_not_weighted"][name]
        table.add_row(
            name, f"no: {reason}" if reason else f"yes, but {weighted}" if weighted else "yes"
        )
    return table


def _fast_weight_table(kernels: dict[str, Any]) -> Table:
    title = f"kernels of ttt_mlp, ttt_shortconv on {kernels['device']}, {kernels['dtype']}"
    table = Table("kernel", "runs here", title=title, title_justify="left", min_width=len(title))
    for name, reason in kernels["why_not"].items():
        table.add_row(name, f"no: {reason}" if reason else "yes")
    return table


def _bytes(cost: Cost) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if cost.state_bytes >= size:
            return f"{cost.state_bytes / size:.3g} {unit}"
    return f"{cost.state_bytes} B"
