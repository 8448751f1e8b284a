"""Turn what a training run left (trunk-*.safetensors, adapter.safetensors) into shipped files.

python experiments/publish_small.py FOLDER BACKEND [KEY=VALUE ...]

Softmax comes first, for it brings the backbone, and the encoder anew where that has learned
(encoder-*.safetensors); a folder with an adapter alone is of the backbone that ships. KEY=VALUE
(commit, device, seconds, …) join the run's last lines of scores and counts in the files' training
record.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vggt3.training.parts import load_encoder, load_parts, options_for, publish
from vggt3.training.run import make_model

ENCODER = Path("src/vggt3/weights/small.encoder.safetensors")
BACKBONE = Path("src/vggt3/weights/small.safetensors")


def record_of(folder: Path, told: list[str]) -> dict[str, str]:
    """What the log says of the end of the run, and what was told."""
    lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    record = dict(pair.split("=", 1) for pair in told)
    for name, start in (("last_step", "step "), ("scores", "validation "), ("time", "trained ")):
        record[name] = next((x for x in reversed(lines) if x.startswith(start)), "not in the log")
    return record


def main(folder: str, backend: str, *told: str) -> None:
    """Write small.BACKEND.safetensors, with softmax small.safetensors too, by the encoder."""
    adapter = Path(folder) / "adapter.safetensors"
    options = options_for(adapter)
    if any(Path(folder).glob("trunk-*.safetensors")):
        model = make_model("small", backend, options)
        load_encoder(model, ENCODER)
        load_parts(model, Path(folder))
    else:
        model = make_model("small", backend, options, None, BACKBONE, adapter)
    publish(model, ENCODER, "small", record_of(Path(folder), list(told)))


if __name__ == "__main__":
    main(*sys.argv[1:])
