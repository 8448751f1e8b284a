"""What a command prints at its end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, letter by letter: names of files may look like rich's markup."""
    shown = Table(title=Text(title), show_header=False, title_justify="left")
    for name, value in rows:
        shown.add_row(Text(name), Text(value))
    Console().print(shown)
