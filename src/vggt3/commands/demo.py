"""``vggt3 demo``: a procedural room is photographed, reconstructed on the CPU, and shown."""

from __future__ import annotations

import shutil
from pathlib import Path

from vggt3.commands.reconstruct import reconstruct
from vggt3.data.capture import write_capture
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice
from vggt3.model.config import preset
from vggt3.model.opening import shipped_backbones


def demo(*, output: Path = Path(".demo"), views: int = 8, seed: int = 7) -> None:
    """Draw a room, reconstruct its photos on the CPU, and say where the pictures are.

    Args:
        output: The folder for photos and scene; an earlier demo there is replaced.
        views: Photos to take.
        seed: Which room.
    """
    model = ModelChoice(preset=None if shipped_backbones() else "tiny")
    side = preset(model.preset or "small").long_side
    size = (side * 3 // 4 // 14 * 14, side)
    photos = output / "capture"
    shutil.rmtree(photos, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    scene = draw_scene(ProceduralConfig(views=views, size=size, outdoors=0.0), seed, 0)
    write_capture(photos, render(scene))
    reconstruct(
        [str(photos / "images")],
        output=output / "scene",
        overwrite=True,
        model=model,
        run=RunOptions(device="cpu"),
    )
    if model.preset:
        print(
            "No trained weights ship yet: this ran the 'tiny' preset at RANDOM weights. The "
            "cameras and depths above are what an untrained network says; they mean nothing."
        )
    print(f"photos:  {photos / 'images'}\npicture: {output / 'scene' / 'preview.png'}")
