"""Bytes of small files, written out: what readers must make of them is known by hand."""

from __future__ import annotations

from pathlib import Path

DEPTH_4X3 = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000004000000031000000000c10f2d590000001e494441"
    "5478da6360b9c4c0f0ffbfba2083ba000323fb05f60b0c2002040167e2084f0a50b86c0000000049"
    "454e44ae426082"
)
"""A 16-bit PNG, 4 across and 3 down: 1234 0 65535 10001 | 10000 1 2000 2000 | 2000 …"""

COLOUR_4X3 = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000040000000308020000003b96399100000019494441"
    "5478da63f8cfc0c0252207440c7016948f6031fc07006954051aa97ffdfa0000000049454e44ae42"
    "6082"
)
"""An RGB PNG, 4 across and 3 down: red, …, green | … | …, blue; else (10, 20, 30)."""


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
