"""Localisation on rooms-v1: maps of 100 photos, 50 queries each, beside the maps' own errors.

    python experiments/localise_rooms.py --scenes 8 --attention softmax,ttt_shortconv

Prints a row for each scene of the set v300, and what the protocol counts of them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from vggt3.evaluation.localising import ASKED, MAPPED, SET, localisation_row, split, summary
from vggt3.evaluation.pictures import Pictures
from vggt3.evaluation.rooms import read_exam
from vggt3.inference.scene_engine import SceneEngine
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model


def main() -> None:
    """Scene by scene, every backend on the same pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--attention", default="softmax,ttt_shortconv")
    parser.add_argument("--cache", type=Path)
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    exam = read_exam()
    pictures = Pictures(exam, asked.cache)
    names = asked.attention.split(",")
    engines = {n: SceneEngine(open_model(ModelChoice(attention=n)).model) for n in names}
    rows: dict[str, list[object]] = {name: [] for name in names}
    for index in exam.choose(SET).scenes[: asked.scenes]:
        scene = pictures.scene((SET, index))
        for name, engine in engines.items():
            row = localisation_row(engine, scene, *split(len(scene.images), MAPPED, ASKED))
            rows[name].append(row)
            print(name, row, flush=True)
    for name, found in rows.items():
        print(name, summary(found))
        print(name, "of all:", summary([replace(row, map_auc=100.0) for row in found]))


if __name__ == "__main__":
    main()
