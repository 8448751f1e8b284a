"""What commands print at their end."""

from __future__ import annotations

import pytest

from vggt3.commands.tables import print_table


def test_names_that_look_like_markup_are_names(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("m[/b]x.vggt3", [("file [bold]", "o [red]ut"), ("photos", "2")])
    told = capsys.readouterr().out
    assert all(text in told for text in ("m[/b]x.vggt3", "file [bold]", "o [red]ut"))
