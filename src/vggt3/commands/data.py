"""``vggt3 data render``: procedural scenes as capture folders, with their ground truth."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from vggt3 import checks
from vggt3.data.capture import not_rendered, write_capture
from vggt3.data.procedural.look import Look
from vggt3.data.procedural.render import render as render_scene
from vggt3.data.procedural.scenes import draw_scene
from vggt3.io.staging import check_out, staged


def render(
    *,
    output: Annotated[Path, "-o"],
    overwrite: bool = False,
    scenes: int = 1,
    seed: int = 0,
    index: int = 0,
    samples: int = 4,
    data: Annotated[Look, "--data."] = Look(),
) -> None:
    """Photograph procedural scenes: photos, cameras and depth as capture folders.

    OUT is one capture, or holds several that are named by their index; it appears whole or not
    at all. The same seed, index and knobs give the same photos on every machine.

    Args:
        output: The folder to write.
        overwrite: Replace what this command wrote to OUT before.
        scenes: Scenes to write, one index after another.
        seed: Names the endless sequence of scenes.
        index: The first scene's place in the sequence.
        samples: Rays a pixel for its colour: 1, or 4 for smooth edges.
    """
    checks.require(scenes >= 1, "--scenes", "be at least 1", scenes)
    checks.require(samples in (1, 4), "--samples", "be 1 or 4", samples)
    for name, value in (("--seed", seed), ("--index", index)):
        checks.require(value >= 0, name, "be at least 0", value)
    check_out(output, overwrite, judge=not_rendered)
    config, textures = data.dressed()
    for note in [] if textures is None else textures.notes():
        print(f"vggt3: note: {note}", file=sys.stderr)
    keep = [] if data.textures is None else [data.textures]
    start = time.perf_counter()
    with staged(output, overwrite, keep, not_rendered) as folder:
        for number in range(index, index + scenes):
            place = folder if scenes == 1 else folder / f"{number:06d}"
            scene = draw_scene(config, seed, number)
            batch = render_scene(scene, None if textures is None else textures.bank, samples)
            write_capture(place, batch, name=f"procedural-{seed}-{number}")
    height, width = config.size
    wrote = f"{config.views} photos of {width}×{height} pixels with cameras and depth"
    if scenes > 1:
        wrote = f"{scenes} scenes, each of {wrote},"
    print(f"{output}: {wrote} in {time.perf_counter() - start:.1f} s")


SUBCOMMANDS = {"render": render}
"""``vggt3 data COMMAND``."""
