"""The presets' parameters and bytes, and what ships: within the budget of a repository."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vggt3.model import names
from vggt3.model.config import PRESETS, SMALL, ModelConfig
from vggt3.model.opening import SHIPPED, shipped_backbones
from vggt3.model.vggt3 import VGGT3
from vggt3.model.weight_files import check_config
from vggt3.model.weight_report import check_file
from vggt3.types import ViewGroup

BESIDE_ENCODER, DENSE_FLOPS, ALL_BYTES, FILE_BYTES = 15e6, 5e9, 52e6, 25e6


def parts(config: ModelConfig) -> dict[str, int]:
    """Parameters by part; fixed buffers are drawn from a seed and count nothing."""
    with torch.device("meta"):
        models = {name: VGGT3.build(config, name) for name in ("softmax", "ttt_shortconv")}
    found = {"encoder": 0, "aggregator": 0, "camera_head": 0, "depth_head": 0, "point_head": 0}
    for name, parameter in models["softmax"].named_parameters():
        if not names.is_adapter(name):
            found[name.split(".")[0]] += parameter.numel()
    for name, model in models.items():
        own = [p.numel() for k, p in model.named_parameters() if names.is_adapter(k)]
        found[f"{name} adapter"] = sum(own)
    return found


def dense_flops(config: ModelConfig, side: int) -> int:
    """Operations (two a multiply-add) of both dense heads on one view more: where a pixel is in
    the image passes through a convolution once, whatever the number of views."""
    found = []
    with torch.device("meta"):
        model = VGGT3.build(config, "softmax")
        tokens = config.special + (side // 14) ** 2
        for views in (1, 2):
            features = tuple(torch.empty(1, views, tokens, 2 * config.width) for _ in range(4))
            group = ViewGroup(torch.empty(1, views, 3, side, side), tuple(range(views)))
            with FlopCounterMode(display=False) as counter:
                model.dense(features, group)
            found.append(int(counter.get_total_flops()))
    return found[1] - found[0]


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())
def test_the_table_of_a_preset(config: ModelConfig) -> None:
    check_config(config, config.preset)
    found = parts(config)
    print(f"\n{config.preset:<24}{'parameters':>14}{'bytes':>14}")
    for part, count in found.items():
        stored = count * (1 if part == "encoder" and config == SMALL else 2)
        print(f"{part:<24}{count:>14,}{stored:>14,}")
    print(f"{'all':<24}{sum(found.values()):>14,}")
    assert all(found.values())


def test_small_is_small() -> None:
    found = parts(SMALL)
    beside = sum(count for part, count in found.items() if part != "encoder")
    assert 12e6 < beside <= BESIDE_ENCODER
    assert dense_flops(SMALL, 224) <= DENSE_FLOPS
    headers = 1e5
    encoder = (SHIPPED / "small.encoder.safetensors").stat().st_size
    assert encoder + 2 * beside + headers <= ALL_BYTES
    assert 2 * beside + headers <= FILE_BYTES * 2


def test_what_ships_fits_and_is_what_it_says() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    sizes = {path.name: path.stat().st_size for path in files}
    assert sum(sizes.values()) <= ALL_BYTES, sizes
    assert max(sizes.values()) <= FILE_BYTES, sizes
    for path in SHIPPED.glob("*.safetensors"):
        check_file(path)
    assert set(shipped_backbones()) <= {"small"}
