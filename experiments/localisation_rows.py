"""Localisation's errors beside the map's own, in small drawn rooms: ``--help``.

The protocol of vggt3.evaluation.localising on rooms of 24 photos: 16 mapped, 8 asked.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from localisation_confidence import QUERIES, VIEWS, model_of

from vggt3.commands.parsing import CommandParser
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.scenes import draw_scene
from vggt3.evaluation.localising import localisation_row, summary
from vggt3.evaluation.rooms import photographed
from vggt3.inference.scene_engine import SceneEngine


def measure(
    *,
    rooms: int = 8,
    seed: int = 2**70 + 77,
    attention: str = "softmax",
    start: Path | None = None,
) -> None:
    """Print a row for each room, and their summary: as the protocol counts, and of all.

    Args:
        rooms: How many.
        seed: Of the rooms.
        attention: Backend.
        start: Folder of a training run; by default the weights that ship.
    """
    engine = SceneEngine(model_of(attention, start))
    config = ProceduralConfig(views=VIEWS, size=(168, 168), outdoors=0.0, abstract=0.0)
    mapped = [n for n in range(VIEWS) if n not in QUERIES]
    rows = []
    for n in range(rooms):
        scene = photographed(draw_scene(config, seed, n), n, samples=4)
        rows.append(localisation_row(engine, scene, mapped, QUERIES))
        print(rows[-1], flush=True)
    print(summary(rows))
    print(summary([replace(row, map_auc=100.0) for row in rows]))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    measure(**CommandParser(measure, "localisation_rows").parse(sys.argv[1:]))
