"""``vggt3 demo``: a procedural room is photographed, reconstructed, and held to the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vggt3.commands.data import render
from vggt3.commands.reconstruct import reconstruct
from vggt3.data.capture import CaptureFrame, read_capture
from vggt3.data.procedural.look import Look
from vggt3.inference.options import RunOptions
from vggt3.io.export.scene_npz import SceneArchive
from vggt3.metrics import AbsRel, PoseAccuracy, pair_errors_deg, sideways, still_baseline
from vggt3.metrics.medians import median, medians
from vggt3.model.choice import ModelChoice
from vggt3.model.config import preset
from vggt3.model.opening import open_model, shipped_backbones

ROOM: Any = {
    "outdoors": 0.0,
    "abstract": 0.0,
    "orbits": 0.0,
    "overlap": (0.35, 0.8),
    "fov_deg": (65.0, 80.0),
}
"""A room, photographed as one does who wants it reconstructed: photos that share much."""


def demo(
    *,
    output: Annotated[Path, "-o"] = Path(".demo"),
    views: int = 8,
    seed: int = 9,
    attention: str | None = None,
) -> None:
    """Photograph a room, reconstruct it on the CPU, and print the errors against the truth.

    Args:
        output: The folder for photos and scene; an earlier demo there is replaced.
        views: Photos to take.
        seed: Which room.
        attention: Backend of the global attention (default: ttt_shortconv).
    """
    model = ModelChoice(preset=None if shipped_backbones() else "tiny", attention=attention)
    if attention is not None:
        open_model(model)  # what cannot be opened is told before anything is drawn
    side = preset(model.preset or "small").long_side
    look = Look(views=views, size=(side * 3 // 4 // 14 * 14, side), **ROOM)
    render(output=output / "capture", overwrite=True, seed=seed, data=look)
    reconstruct(
        [str(output / "capture" / "images")],
        output=output / "scene",
        overwrite=True,
        model=model,
        run=RunOptions(device="cpu"),
    )
    if views > 1:
        _print_errors(output / "capture", output / "scene")
    if model.preset:
        print(
            "No trained weights ship yet: this ran the 'tiny' preset at RANDOM weights. The "
            "cameras and depths above are what an untrained network says; they mean nothing."
        )
    print(f"photos:  {output / 'capture' / 'images'}\npicture: {output / 'scene/preview.png'}")


def _print_errors(capture: Path, scene: Path) -> None:
    """The errors of a reconstruction beside those of a guess that looks at no photo."""
    taken = read_capture(capture)
    frames, truth = taken.frames, taken.cameras().camera_from_world[None]
    found = {f.file.name: f for f in read_capture(scene).frames}
    poses = torch.stack([_or_nan(found[f.file.name].camera_from_world) for f in frames])[None]
    depth = torch.stack([d for f in frames if (d := f.depth()) is not None])[None]
    with SceneArchive(scene / "scene.npz") as maps:
        guess = torch.stack([maps[f.file.name].depth for f in frames])[None]
    ours = _errors(poses, guess, truth, depth)
    theirs = _errors(sideways(truth), torch.ones_like(depth), truth, depth)
    shown = Table("against the truth", "this model", "a blind guess", title_justify="left")
    ours["focal lengths, median error"] = _focal_error([(found[f.file.name], f) for f in frames])
    theirs["focal lengths, median error"] = "–"
    for name, mine in ours.items():
        shown.add_row(name, mine, theirs[name])
    Console().print(shown)


def _focal_error(pairs: list[tuple[CaptureFrame, CaptureFrame]]) -> str:
    """Of both directions of all photos (found, true), relative."""
    ratios = [
        found.intrinsics.diagonal()[:2] / true.intrinsics.diagonal()[:2]
        for found, true in pairs
        if found.intrinsics is not None and true.intrinsics is not None
    ]
    return f"{100 * median((torch.cat(ratios) - 1).abs()):.1f} %" if ratios else "–"


def _or_nan(pose: Tensor | None) -> Tensor:
    return torch.full((3, 4), torch.nan) if pose is None else pose


def _errors(
    poses: Tensor,  # [1, V, 3, 4] camera_from_world
    guess: Tensor,  # [1, V, H, W] depth
    truth: Tensor,  # [1, V, 3, 4]
    depth: Tensor,  # [1, V, H, W] metres, 0 is unknown
) -> dict[str, str]:
    """Scores by name, as they are shown."""
    accuracy, distance = PoseAccuracy(), AbsRel()
    accuracy.update(poses, truth, still_baseline(depth, depth > 0))
    distance.update(guess, depth, depth > 0)
    rotation, translation = pair_errors_deg(poses.double(), truth.double())
    return {
        "AUC@30 of pairs of photos": f"{float(accuracy.compute()['auc@30']):.1f}",
        "rotation between photos, median": f"{float(medians(rotation)):.1f}°",
        "direction of motion, median": f"{float(medians(translation)):.1f}°",
        "depth, mean relative error": f"{100 * float(distance.compute()['absrel']):.1f} %",
    }
