"""Pose accuracy on folders of posed photos.

    python experiments/score_captures.py FOLDER… --attention NAME

Every posed photo of a capture is read once, in one scene; pairs are scored against its cameras.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vggt3.data.capture import read_capture
from vggt3.inference.collect import reconstruct
from vggt3.metrics import PoseAccuracy, sideways
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model


def main(folders: list[str], attention: str | None = None) -> None:
    """Print a row of a Markdown table for each folder."""
    model = open_model(ModelChoice(attention=attention)).model
    print("| photos | | AUC@30 | trivial | RRA@15 | RTA@15 |\n|---|---|---|---|---|---|")
    for folder in map(Path, folders):
        capture = read_capture(folder)
        posed = capture.posed
        found = reconstruct([str(frame.file) for frame in posed], model)
        truth = capture.cameras().camera_from_world.double()
        ours, trivial = PoseAccuracy(), PoseAccuracy()
        ours.update(found.cameras.camera_from_world.double()[None], truth[None])
        trivial.update(sideways(truth)[None], truth[None])
        scores = ours.compute()
        row = [scores["auc@30"], trivial.compute()["auc@30"], scores["rra@15"], scores["rta@15"]]
        values = " | ".join(f"{float(v):.1f}" for v in row)
        print(f"| {folder.name} ({capture.pose_kind}) | {len(posed)} | {values} |", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--attention")
    asked = parser.parse_args()
    main(asked.folders, asked.attention)
