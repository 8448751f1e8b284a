"""Do more photos harm? The same 24 photos of a scene scored alone and among all 300.

    python experiments/no_decay.py OUT.json --attention ttt_shortconv --scenes 8 --cache rooms

rooms-v1's set v300, 2 sweeps, clouds from depth and camera: references evenly over the sequence
(the scaling protocol with 24), the others as support that is not scored. Prints paired
differences, among all less alone, with 95 % intervals. OUT.json keeps each scene's scores and what
they are of: a run that was stopped goes on where it was, one of something else is refused.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from vggt3.evaluation.examine import SWEEPS, exam_engine, open_examined, predict
from vggt3.evaluation.intervals import interval, paired
from vggt3.evaluation.pictures import Pictures
from vggt3.evaluation.protocols.selection import Strided
from vggt3.evaluation.rooms import Exam, ExamScene, read_exam
from vggt3.evaluation.scoring import Predicted, score_scene
from vggt3.files import replacing
from vggt3.inference.identity import identity_of
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice

SHOWN = ("auc@30", "rra@15", "rta@15", "absrel", "cd", "nc")


def with_views(exam: Exam, views: int) -> Exam:
    """The exam with as many photos of each room of v300."""
    rooms = exam.choose("v300")
    more = replace(rooms, config=replace(rooms.config, views=views))
    return replace(exam, sets={**exam.sets, "v300": more})


def part(scene: ExamScene, views: list[int]) -> ExamScene:
    """Some views of a scene, the first of them its first."""
    return replace(
        scene,
        images=scene.images[views],
        depth=scene.depth[views],
        camera_from_world=scene.camera_from_world[views],
        intrinsics=scene.intrinsics[views],
    )


def among(predicted: Predicted, views: list[int]) -> Predicted:
    """What was said of some views."""
    clouds = {name: cloud[views] for name, cloud in predicted.points.items()}
    return Predicted(predicted.camera_from_world[views], predicted.depth[views], clouds)


def main() -> None:
    """Score scene by scene, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--attention", default="ttt_shortconv")
    parser.add_argument("--adapter")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--only", type=int, nargs="+", help="of these scenes, by number")
    parser.add_argument("--sweeps", type=int, default=SWEEPS)
    parser.add_argument("--references", type=int, default=24)
    told = "photos a scene; other than 300: the same rooms photographed anew, which no cache keeps"
    parser.add_argument("--views", type=int, default=300, help=told)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    asked = parser.parse_args()
    if asked.cache and asked.views != 300:
        parser.error("--cache keeps the exam's scenes, of 300 views")
    exam, choice = with_views(read_exam(), asked.views), Strided(asked.references, asked.views)
    named = {"adapter": asked.adapter} if asked.adapter else {"attention": asked.attention}
    options = {"sweeps": asked.sweeps} if not asked.adapter and asked.attention != "softmax" else {}
    engine = exam_engine(
        open_examined(ModelChoice(**named, attention_options=options)).model, RunOptions()
    )
    about = {
        "adapter": identity_of(engine.model).adapter,
        "sweeps": asked.sweeps,
        "references": asked.references,
        "views": asked.views,
    }
    kept = json.loads(asked.output.read_text()) if asked.output.exists() else {"about": about}
    if kept.get("about") != about:
        parser.error(f"{asked.output} must be of {about}, got {kept.get('about')}")
    found = kept.setdefault("scenes", {})
    scenes = exam.choose("v300").scenes[: asked.scenes]
    wanted = [n for n in scenes if not asked.only or n in asked.only]
    tasks = [("v300", n) for n in wanted if str(n) not in found]
    for scene in Pictures(exam, asked.cache, asked.workers).each(tasks):
        began = time.perf_counter()
        scored = list(choice.choose(len(scene.images)).scored)
        few = part(scene, scored)
        alone, _ = score_scene(predict(engine, few, "depth"), few)
        whole, _ = score_scene(among(predict(engine, scene, "depth"), scored), few)
        found[str(scene.index)] = {"alone": alone, "among all": whole}
        with replacing(asked.output) as draft:
            draft.write_text(json.dumps(kept))
        told = ", ".join(f"{k} {alone[k]:.3f} → {whole[k]:.3f}" for k in SHOWN)
        print(f"scene {scene.index}, {time.perf_counter() - began:.0f} s: {told}", flush=True)
    rows = [found[str(n)] for n in wanted]
    for key in SHOWN:
        ours, theirs = ([row[way][key] for row in rows] for way in ("among all", "alone"))
        a, b, d = interval(theirs), interval(ours), paired(ours, theirs)
        share = f", {100 * d.mean / a.mean:+.1f} % of it" if key in ("absrel", "cd") else ""
        print(
            f"{key}: alone {a.mean:.3f}, among all {b.mean:.3f}, difference {d.mean:+.3f} "
            f"[{d.low:+.3f}, {d.high:+.3f}]{share}, {len(rows)} scenes"
        )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
