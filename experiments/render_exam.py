"""Render the pictures of an ablation's exam into a cache, ahead of the processes that score.

python experiments/render_exam.py experiments/ablation.yaml CACHE WORKERS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from vggt3.evaluation.examine import ExamOptions
from vggt3.evaluation.pictures import pictures_for
from vggt3.evaluation.rooms import read_exam
from vggt3.training.ablation import settings


def main(experiment: str, cache: str, workers: str) -> None:
    """Set by set, in the exam's order."""
    began, exam = time.monotonic(), read_exam()
    for name, count in settings.read(Path(experiment)).exam.scenes.items():
        options = ExamOptions(set=name, scenes=count, cache=Path(cache), workers=int(workers))
        for _ in pictures_for(exam, options, torch.device("cpu"), count).each(options.tasks(exam)):
            pass
        print(f"{name}: {count} scenes, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
