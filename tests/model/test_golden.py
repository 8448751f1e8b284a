"""Parity with the reference models: outputs, map state, queries, gradients; chunks; sweeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.model.conftest import Golden, distance
from vggt3.geometry.camera import decode_pose
from vggt3.geometry.projection import unproject
from vggt3.model import names
from vggt3.model.scene import Conduct
from vggt3.model.vggt3 import VGGT3, Prediction
from vggt3.types import Views

OUTPUT, GRADIENT, RATE_BIAS = 1e-5, 1e-4, 3e-3
SCENES = [("vggt", "outputs", {})] + [
    ("vggt_ttt", f"outputs_steps{n}", {"sweeps": n}) for n in (1, 2, 3)
]


def outputs(model: VGGT3, prediction: Prediction, size: tuple[int, int]) -> dict[str, Tensor]:
    """A prediction of one group under the reference's names."""
    maps = prediction.dense[0]
    camera_from_world, intrinsics = decode_pose(prediction.pose, size)
    bottom = torch.tensor([0.0, 0, 0, 1]).expand(*camera_from_world.shape[:-2], 1, 4)
    found = {f"pose_enc_iter{n}": pose for n, pose in enumerate(prediction.pose_stages)}
    for layer, tokens in enumerate(prediction.trunk.features[0]):
        found[f"tokens_layer{layer}"] = tokens
    return found | {
        "cam_tokens": prediction.trunk.camera_tokens,
        "pose_enc": prediction.pose,
        "extrinsic_cam_from_world": camera_from_world,
        "intrinsics": intrinsics,
        "pose_world_from_cam": torch.linalg.inv(torch.cat([camera_from_world, bottom], dim=-2)),
        "depth": maps.depth[..., None],
        "depth_conf": maps.depth_confidence,
        "world_points": maps.points,
        "world_points_conf": maps.points_confidence,
        "points_from_depth": unproject(
            maps.depth, intrinsics, camera_from_world, model.config.pixel_offset
        ),
    }


@pytest.mark.parametrize(("which", "file", "options"), SCENES)
@torch.no_grad()
def test_outputs(golden: Golden, which: str, file: str, options: dict[str, object]) -> None:
    model = golden.model(which, **options)
    views = golden.scene()
    found = outputs(model, model(views), views.groups[0].size)
    for name, expected in golden.file(f"{which}.{file}").items():
        assert distance(found[name], expected) < OUTPUT, name


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("which", "file", "options"), SCENES)
@torch.no_grad()
def test_chunks_of_one_view(
    golden: Golden, which: str, file: str, options: dict[str, object], keep: bool
) -> None:
    model = golden.model(which, **options)
    prediction = model(golden.scene().chunked(1), Conduct(keep=keep))
    expected = golden.file(f"{which}.{file}")
    assert distance(prediction.pose, expected["pose_enc"]) < OUTPUT
    depth = torch.cat([maps.depth for maps in prediction.dense], dim=1)
    assert distance(depth[..., None], expected["depth"]) < OUTPUT
    points = torch.cat([maps.points for maps in prediction.dense], dim=1)
    assert distance(points, expected["world_points"]) < OUTPUT


@torch.no_grad()
def test_map_state_and_queries(golden: Golden) -> None:
    model = golden.model("vggt_ttt", sweeps=2)
    mapped = model(golden.scene()).memory
    for name, expected in golden.file("vggt_ttt.map_state").items():
        layer, weight = name.removeprefix("layer").split(".")
        assert distance(mapped.states[int(layer)][weight][0], expected) < OUTPUT, name
    queries = golden.file("vggt_ttt.query_outputs")
    for n, image in enumerate(golden.images()[:, 3:].split(1, dim=1)):
        views = Views.from_tensor(image)
        found = outputs(model, model(views, memory=mapped), views.groups[0].size)
        for name in [k for k in queries if k.startswith(f"query{n}.")]:
            assert distance(found[name.removeprefix(f"query{n}.")], queries[name]) < OUTPUT, name


@torch.no_grad()
def test_queries_in_a_batch_never_see_each_other(golden: Golden) -> None:
    model = golden.model("vggt_ttt", sweeps=2)
    mapped = model(golden.scene()).memory
    found = model(Views.from_tensor(golden.images()[:, 3:]), memory=mapped)
    queries = golden.file("vggt_ttt.query_outputs")
    for n in range(found.pose.shape[1]):
        assert distance(found.pose[:, n : n + 1], queries[f"query{n}.pose_enc"]) < OUTPUT


def reference_loss(prediction: Prediction) -> Tensor:
    """FACTS section 5: what the golden gradients are of."""
    maps = prediction.dense[0]
    return (
        prediction.trunk.features[0][3].square().mean()
        + prediction.pose.abs().mean()
        + maps.depth.mean()
        + maps.points.abs().mean()
    )


@pytest.mark.parametrize(
    ("dtype", "checkpoint"),
    [(torch.float32, False), (torch.float32, True), (torch.float64, False)],
)
@pytest.mark.parametrize(
    ("which", "file", "options"),
    [("vggt", "grads", {})] + [("vggt_ttt", f"grads_steps{n}", {"sweeps": n}) for n in (1, 2)],
)
def test_gradients(
    golden: Golden,
    which: str,
    file: str,
    options: dict[str, object],
    dtype: torch.dtype,
    checkpoint: bool,
) -> None:
    """With native convolutions: oneDNN's rounding turns 2 of a million ReLU inputs of the dense
    heads over zero, which alone moves gradients by 3e-4; the native ones turn none."""
    model = golden.model(which, **options).to(dtype)
    views = Views.from_tensor(golden.images()[:, :3].to(dtype))
    with torch.backends.mkldnn.flags(enabled=False):
        loss = reference_loss(model(views, Conduct(checkpoint=checkpoint)))
        loss.backward()  # type: ignore[no-untyped-call]
    expected = golden.file(f"{which}.{file}")
    assert distance(loss.detach().reshape(1), expected.pop("loss")) < OUTPUT
    parameters = dict(model.named_parameters())
    for public, gradient in expected.items():
        name = names.ours(public)
        assert name is not None
        found = parameters[name].grad
        assert found is not None, name
        limit = RATE_BIAS if name.endswith("rates.bias") else GRADIENT
        assert distance(found, gradient) < limit, name
