"""An ablation that takes seconds: a tiny backbone, scenes of three small pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vggt3.evaluation.rooms import Exam, read_exam
from vggt3.inference.options import RunOptions
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.model.weights_saving import save_adapter, save_backbone
from vggt3.training.ablation.folder import Folder
from vggt3.training.ablation.settings import Ablation, parse
from vggt3.training.ablation.work import Work

# Pictures of the exam's own size: nothing that an exam leaves behind may reach the next training.
TRAINING = {
    "steps": 2,
    "report_every": 1,
    "data": {"views": 3, "size": [28, 42], "scenes": 1, "furniture": [1, 2]},
    "optimizer": {"lr": 1e-3},
}
EXAM = {"scenes": {"v8": 2}, "points": "none", "repeat": 0}
ROWS: list[dict[str, Any]] = [
    {"name": "softmax", "attention": "softmax", "paper": {"auc@30": 76.33, "cd": 0.061}},
    {
        "name": "from scratch",
        "attention": "ttt_shortconv",
        "start": "scratch",
        "paper": {"auc@30": 52.95, "cd": 0.262},
    },
]


def small_exam() -> Exam:
    exam = read_exam()
    sets = {
        name: replace(s, config=replace(s.config, size=(28, 42), views=views))
        for (name, s), views in zip(exam.sets.items(), (3, 4, 5, 6, 3, 3, 3), strict=True)
    }
    return replace(exam, sets=sets)


def save_tiny(folder: Path) -> Path:
    """A backbone with random weights, and its softmax adapter."""
    loaded = open_model(ModelChoice(preset="tiny", attention="softmax"))
    with torch.no_grad():  # so that what the global blocks say matters
        for name, parameter in loaded.model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.7)
    backbone = folder / "toy.safetensors"
    mark = save_backbone(backbone, loaded.model)
    save_adapter(folder / "toy.softmax.safetensors", loaded.model, backbone=mark)
    return backbone


def toy(backbone: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> Ablation:
    content = {
        "weights": str(backbone),
        "training": TRAINING,
        "exam": EXAM,
        "rows": rows,
    }
    return parse({**content, **changes})


def work(ablation: Ablation, folder: Path, **changes: Any) -> Work:
    usual: dict[str, Any] = {"run": RunOptions(device="cpu"), "exam": small_exam()}
    return Work(ablation, Folder(folder), **{**usual, **changes})
