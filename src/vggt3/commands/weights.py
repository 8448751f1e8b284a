"""``vggt3 weights``: bring in public checkpoints, look into weight files, hold them to account."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from vggt3 import checks


def import_weights(
    source: str,
    *,
    output: Annotated[Path, "-o"],
    attention: str | None = None,
    camera_heads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Split a public single-file checkpoint into a backbone and an adapter.

    Writes OUTPUT/PRESET.safetensors and OUTPUT/PRESET.BACKEND.safetensors. A backbone that is
    there already and equal is kept, so that several checkpoints of one backbone share it.

    Args:
        source: A file, a folder that holds model.safetensors or model.pt, or a repository of the
            Hugging Face Hub such as facebook/VGGT-1B or nvidia/vgg-ttt.
        output: The folder to write to.
        attention: The backend that the tensors are for, whatever classes a config.json names.
        camera_heads: Attention heads of the camera head, where the checkpoint has another size
            than vggt_1b; its shapes cannot tell.
        overwrite: Replace files that are there.
    """
    from dataclasses import replace

    from vggt3.model import hub
    from vggt3.model.config import VGGT_1B
    from vggt3.model.public_weights import import_checkpoint

    record = {}
    path = Path(source)
    if not path.exists() and hub.is_repo(source):
        fetched = hub.fetch(source)
        path, record = fetched.checkpoint, {"repository": source, "licence": fetched.licence}
        print(fetched.licence)
    elif path.is_dir():
        held = [p.name for p in sorted(path.iterdir()) if p.is_file()]
        path = path / hub.choose_file(str(path), held)
    if not record:
        print("licence: the weights keep the one they were published under; see their model card")
    like = VGGT_1B
    if camera_heads is not None:
        checks.require(camera_heads >= 1, "--camera-heads", "be at least 1", camera_heads)
        like = replace(like, camera_heads=camera_heads)
    done = import_checkpoint(
        path, output, like=like, attention=attention, overwrite=overwrite, record=record
    )
    if camera_heads is None and done.config.preset != like.preset:
        told = "taken as in vggt_1b; its shapes cannot tell (--camera-heads)"
        print(f"camera heads: {done.config.camera_heads}, {told}")
    print(f"backbone: {done.backbone} ({'was there' if done.kept else done.config.preset})")
    print(f"adapter:  {done.adapter} ({done.attention})")
    print(f"fingerprint: {done.fingerprint}")
    print(f"use: vggt3 reconstruct … --weights {done.backbone} --attention {done.attention}")


def encoder(
    source: Path,
    *,
    output: Annotated[Path, "-o"],
    heads: int | None = None,
    origin: str = "",
    overwrite: bool = False,
) -> None:
    """Store a DINOv2-style encoder as int8, to be a part of backbones.

    Args:
        source: A checkpoint with DINOv2's names.
        output: The file to write.
        heads: Its attention heads; by default they are 64 channels wide, as DINOv2's are.
        origin: Where it comes from and under which licence, for the header.
        overwrite: Replace a file that is there.
    """
    from vggt3.model.public_weights import import_encoder

    if output.exists() and not overwrite:
        checks.fail(str(output), "be replaced only with --overwrite", "an existing file")
    mark = import_encoder(source, output, heads=heads, origin=origin)
    print(f"encoder: {output} ({output.stat().st_size / 1e6:.2f} MB, fingerprint {mark[:16]}…)")


def show(file: Path | None = None) -> None:
    """Print a weight file's header and what its tensors amount to; without one, what ships.

    Args:
        file: A backbone, an adapter or an encoder; one that ships also by its name, such as
            small or small.softmax.
    """
    from vggt3.model.opening import SHIPPED, SUFFIX
    from vggt3.model.weight_report import describe

    if file is None:
        names = sorted(path.name.removesuffix(SUFFIX) for path in SHIPPED.glob(f"*{SUFFIX}"))
        for name in names:
            print(f"{name:<24}{(SHIPPED / f'{name}{SUFFIX}').stat().st_size / 1e6:>6.1f} MB")
        return
    ships = SHIPPED / f"{file.name}{SUFFIX}"
    rows, groups = describe(ships if not file.exists() and ships.exists() else file)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    print(f"\n{'part':<32}{'tensors':>8}{'values':>14}{'bytes':>14}")
    columns = list(zip(*groups, strict=True))[1:] if groups else [(0,)] * 3
    for part, tensors, values, size in (*groups, ("all", *map(sum, columns))):
        print(f"{part:<32}{tensors:>8}{values:>14,}{size:>14,}")


def check(files: list[Path]) -> int:
    """Recompute fingerprints, and hold parts and adapters to their backbones.

    Args:
        files: Backbones, adapters, encoders.
    """
    from vggt3.model.weight_report import check_file

    failed = 0
    for file in files:
        try:
            print(f"{file}: {check_file(file)}")
        except checks.DataError as error:
            failed += 1
            print(f"vggt3: {' '.join(str(error).split())}", file=sys.stderr)
    return 1 if failed else 0


SUBCOMMANDS: Mapping[str, Callable[..., object]] = {
    "import": import_weights,
    "encoder": encoder,
    "show": show,
    "check": check,
}
