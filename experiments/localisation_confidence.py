"""How well confidence tells photos of a mapped room from photos of other rooms.

``python experiments/localisation_confidence.py --help``. Rooms are drawn from a seed, 24 photos
each; every third is a query, the others are mapped. Each map is asked its own eight queries and
those of three other rooms.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from vggt3.commands.parsing import CommandParser
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.data.procedural.render import render
from vggt3.data.procedural.scenes import draw_scene
from vggt3.evaluation.localising import auroc
from vggt3.inference.localise import Localizer
from vggt3.inference.mapping import map_taken, recall_of
from vggt3.inference.recall import LEAST_GAP
from vggt3.inference.scene_engine import SceneEngine
from vggt3.inference.scene_memory import SceneMemory
from vggt3.inference.taking import take
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import SHIPPED, open_model
from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import VGGT3
from vggt3.training.parts import options_for
from vggt3.training.run import make_model
from vggt3.types import Views

QUERIES, VIEWS, OTHERS = tuple(range(2, 24, 3)), 24, 3


def photos(seed: int, index: int, config: ProceduralConfig) -> Tensor:
    """[24, 3, H, W] uint8 of one room."""
    images = render(draw_scene(config, seed, index)).images[0]
    return (images * 255).round().to(torch.uint8)


@torch.inference_mode()
def rivals(
    engine: SceneEngine, scene: SceneMemory, mapped: Tensor, asked: Tensor
) -> dict[str, Tensor]:
    """Other signals that could tell, [Q] each, larger is more familiar."""
    model, views = engine.model, Views.from_tensor(asked)

    def describe(images: Tensor) -> Tensor:
        return normalize(model.encoder(images).mean(dim=1), dim=-1)

    trunk = model.read(views, Conduct(keep=False), scene.memory)
    stages = model.poses(trunk, scene.memory)
    tokens, known = trunk.camera_tokens[0], scene.memory.camera_tokens[0]
    maps = model.dense(trunk.features[0], views.groups[0])
    return {
        "nearest camera token": (normalize(tokens, dim=-1) @ normalize(known, dim=-1).T).amax(1),
        "nearest image descriptor": (describe(asked) @ describe(mapped).T).amax(1),
        "last refinement, small": -(stages[-1] - stages[-2])[0].norm(dim=-1),
        "depth confidence": maps.depth_confidence[0].flatten(1).log().median(1).values,
    }


def fitted(place: Tensor, same: Tensor) -> tuple[float, float]:
    """Slope and middle of the logistic that fits best, both classes weighing alike."""
    weight = torch.where(same > 0.5, 0.5 / same.sum(), 0.5 / (1 - same).sum()).double()
    line = torch.tensor([5.0, -2.5], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = line[0] * place.double() + line[1]
        loss = binary_cross_entropy_with_logits(logits, same.double(), reduction="none") * weight
        loss.sum().backward()
        return loss.sum()

    optimizer.step(closure)
    slope, shift = line.detach().tolist()
    return slope, -shift / slope


def reliability(confidence: Tensor, same: Tensor) -> list[dict[str, float]]:
    """For each fifth of confidence: photos, its mean, share of the room's own at even odds."""
    weight = torch.where(same > 0.5, 0.5 / same.sum(), 0.5 / (1 - same).sum())
    rows = []
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (confidence >= low) & (confidence < low + 0.2 + 1e-6 * (low > 0.7))
        if inside.any():
            total = weight[inside].sum()
            share = (weight * same)[inside].sum() / total
            mean = (weight * confidence)[inside].sum() / total
            rows.append({"from": low, "photos": int(inside.sum()), "mean": float(mean),
                         "own": float(share)})  # fmt: skip
    return rows


def measure(
    *,
    output: Path,
    rooms: int = 24,
    seed: int = 2**70,
    mix: bool = False,
    others: bool = False,
    attention: str = "softmax",
    start: Path | None = None,
) -> None:
    """Measure AUROC and calibration of confidence.

    Args:
        output: JSON file to write.
        rooms: How many rooms.
        seed: Of the rooms; 2^70 is for fitting the logistic, 2^70 + 1 for testing it.
        mix: Yards and heaps of solids too, as in training, rather than rooms alone.
        others: Measure other signals too.
        attention: Backend.
        start: Folder of a training run (trunk-*.safetensors, adapter.safetensors); by default the
            weights that ship.
    """
    model = model_of(attention, start)
    engine = SceneEngine(model)
    inside: dict[str, Any] = {} if mix else {"outdoors": 0.0, "abstract": 0.0}
    config = ProceduralConfig(views=VIEWS, size=(168, 168), **inside)
    taken = [photos(seed, n, config) for n in range(rooms)]
    mapped = [n for n in range(VIEWS) if n not in QUERIES]
    found: dict[str, list[Tensor]] = {}
    for n in range(rooms):
        known = taken[n][mapped]
        scene = map_taken(engine, take(Views.from_tensor(known), 168))
        localizer = Localizer(engine, scene)
        strange = [(n + 1 + k * rooms // (OTHERS + 1)) % rooms for k in range(OTHERS)]
        for other in [n, *strange]:
            asked = taken[other][list(QUERIES)]
            recall = recall_of(engine, localizer.scene.memory, asked[None])
            marks = scene.familiarity
            gap = max(marks.own - marks.elsewhere, LEAST_GAP)
            row = {
                "recall": recall,
                "place": (recall - marks.elsewhere) / gap,
                "confidence": marks.confidence(recall),
                "same": torch.full_like(recall, float(other == n)),
                "room": torch.full_like(recall, float(n)),
                **(rivals(engine, scene, known, asked) if others else {}),
            }
            for name, values in row.items():
                found.setdefault(name, []).append(values.cpu())
        print(f"room {n + 1} of {rooms}", file=sys.stderr, flush=True)
    table = {name: torch.cat(values) for name, values in found.items()}
    report = _report(table, rooms, seed, mix, model)
    output.write_text(json.dumps({**report, "table": {k: v.tolist() for k, v in table.items()}}))
    print(json.dumps(report, indent=1))


def model_of(attention: str, start: Path | None) -> VGGT3:
    """The shipped weights, or those of a training run, in evaluation mode."""
    if start is None:
        return open_model(ModelChoice(attention=attention)).model
    encoder = SHIPPED / "small.encoder.safetensors"
    options = options_for(start / "adapter.safetensors")
    return make_model("small", attention, options, encoder, start).eval()


def _report(
    table: dict[str, Tensor], rooms: int, seed: int, mix: bool, model: VGGT3
) -> dict[str, Any]:
    same = table["same"]
    signals = [name for name in table if name not in ("same", "room", "place")]
    each = {
        name: [
            auroc(table[name][table["room"] == n], same[table["room"] == n] > 0.5)
            for n in range(rooms)
        ]
        for name in signals
    }
    return {
        "rooms": rooms,
        "seed": seed,
        "mix": mix,
        "attention": model.specs[0].name,
        "queries": [int(same.sum()), int((1 - same).sum())],
        "auroc": {name: auroc(table[name], same > 0.5) for name in signals},
        "auroc of one room, mean": {n: sum(v) / len(v) for n, v in each.items()},
        "auroc of one room, least": {n: min(v) for n, v in each.items()},
        "fit": fitted(table["place"], same),
        "reliability": reliability(table["confidence"], same),
    }


if __name__ == "__main__":
    measure(**CommandParser(measure, "localisation_confidence").parse(sys.argv[1:]))
