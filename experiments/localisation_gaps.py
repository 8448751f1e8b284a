"""What the fast camera head, half precision and extension change: ``--help``.

Rooms are drawn as in localisation_confidence.py: 16 photos mapped, 8 asked. Extension: the first
11 of the 16 are mapped and 5 added, set against all 16 at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from localisation_confidence import QUERIES, VIEWS, model_of, photos

from vggt3.commands.parsing import CommandParser
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.inference.camera_gap import CameraGap
from vggt3.inference.extend import distance, extend_taken, scaling
from vggt3.inference.localise import Localizer, QueryOptions, gap_between
from vggt3.inference.mapping import map_taken
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.taking import take
from vggt3.metrics.medians import median
from vggt3.types import Views

FIRST = 11


def measure(
    *,
    rooms: int = 4,
    seed: int = 2**70 + 1,
    attention: str = "softmax",
    start: Path | None = None,
) -> None:
    """Print medians over rooms.

    Args:
        rooms: How many.
        seed: Of the rooms.
        attention: Backend.
        start: Folder of a training run; by default the weights that ship.
    """
    engine = SceneEngine(model_of(attention, start))
    config = ProceduralConfig(views=VIEWS, size=(168, 168), outdoors=0.0, abstract=0.0)
    mapped = [n for n in range(VIEWS) if n not in QUERIES]
    found: dict[str, list[CameraGap]] = {"fast head": [], "half": [], "extend": []}
    states, errors = [], []
    for n in range(rooms):
        images = photos(seed, n, config)
        known, asked = images[mapped], Views.from_tensor(images[list(QUERIES)])
        scene = map_taken(engine, take(Views.from_tensor(known), 168))
        exact = Localizer(engine, scene, QueryOptions(dense=False))
        fast = Localizer(engine, scene, QueryOptions(dense=False, fast_head=True))
        half = Localizer(engine, scene.halved(), QueryOptions(dense=False))
        found["fast head"].append(gap_between(exact, fast, asked))
        found["half"].append(gap_between(exact, half, asked))
        first = map_taken(engine, take(Views.from_tensor(known[:FIRST]), 168))
        grown = extend_taken(engine, first, take(Views.from_tensor(known[FIRST:]), 168))
        away = distance(grown, scene, len(known) - FIRST)
        found["extend"].append(away.cameras)
        states.append(away.states)
        motion = scaling(*(s.cameras.camera_from_world.double() for s in (grown, scene)))
        larger = Localizer(engine, grown, exact.options, motion)
        grown_answers = gap_between(exact, larger, asked)
        errors.append(grown_answers)
        print(n, away.describe(), "| queries:", grown_answers.describe(), file=sys.stderr)
    for name, gaps in {**found, "queries of the extended": errors}.items():
        turn = median(torch.tensor([gap.rotation_deg for gap in gaps]))
        move = median(torch.tensor([gap.centre for gap in gaps]))
        print(f"{name}: rotation {turn:.3g}°, centre {100 * move:.3g} % of the extent")
    print(f"extended states: {median(torch.tensor(states)):.3f} relative")


if __name__ == "__main__":
    measure(**CommandParser(measure, "localisation_gaps").parse(sys.argv[1:]))
