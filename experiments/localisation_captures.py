"""Confidence on photographs: ``python experiments/localisation_captures.py FOLDER…``.

Of each folder (at most 16 of its photos, evenly), every other one is mapped; the rest are asked,
and two of each other folder's rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from localisation_confidence import model_of, reliability

from vggt3.commands.parsing import CommandParser
from vggt3.evaluation.localising import auroc
from vggt3.inference.localise import Localizer, QueryOptions
from vggt3.inference.mapping import map_taken
from vggt3.inference.recall import spread_out
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.taking import Taken
from vggt3.io.photo_set import PhotoSet
from vggt3.io.photos import read_photos
from vggt3.io.sources import find_photos
from vggt3.metrics.medians import median

MOST, OF_OTHERS = 16, 2


def chosen(folder: Path, long_side: int) -> tuple[PhotoSet, PhotoSet]:
    """Photos to map and photos to ask about."""
    paths = find_photos(folder / "images" if (folder / "images").is_dir() else folder)
    paths = [paths[n] for n in spread_out(len(paths), MOST)]
    mapped, asked = (read_photos(paths[k::2], long_side=long_side) for k in (0, 1))
    return mapped, asked


def measure(folders: list[str], *, attention: str = "softmax", start: Path | None = None) -> None:
    """Print confidence's AUROC for each folder and for all.

    Args:
        folders: Folders of photos.
        attention: Backend.
        start: Folder of a training run; by default the weights that ship.
    """
    engine = SceneEngine(model_of(attention, start))
    sets = [chosen(Path(folder), engine.model.config.long_side) for folder in folders]
    sure, own = [], []
    for n, (mapped, asked) in enumerate(sets):
        scene = map_taken(engine, Taken.of(mapped))
        localizer = Localizer(engine, scene, QueryOptions(dense=False))
        strange = [p for k, (_, rest) in enumerate(sets) if k != n for p in rest.photos[:OF_OTHERS]]
        views = PhotoSet((*asked.photos, *strange)).views()
        answers = sorted(localizer.ask(views), key=lambda answer: answer.index)
        found = torch.tensor([answer.confidence for answer in answers])
        same = torch.arange(len(found)) < len(asked)
        sure.append(found)
        own.append(same)
        marks = scene.familiarity
        print(
            f"{Path(folders[n]).name}: {len(mapped)} mapped, AUROC {auroc(found, same):.3f}, own "
            f"{median(found[same]):.2f} (least {float(found[same].min()):.2f}), others "
            f"{median(found[~same]):.2f} (most {float(found[~same].max()):.2f}); marks "
            f"{marks.own:.3f} {marks.elsewhere:.3f}",
            flush=True,
        )
    everything, of = torch.cat(sure), torch.cat(own)
    print(f"all: AUROC {auroc(everything, of):.3f} of {int(of.sum())} and {int((~of).sum())}")
    print(reliability(everything, of.float()))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    measure(**CommandParser(measure, "localisation_captures").parse(sys.argv[1:]))
