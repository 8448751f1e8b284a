"""Turn what a training run left (trunk-*.safetensors, adapter.safetensors) into shipped files.

python experiments/publish_small.py FOLDER [BACKEND] [ENCODER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from vggt3.training.parts import load_encoder, load_parts, publish
from vggt3.training.run import make_model

ENCODER = "src/vggt3/weights/small.encoder.safetensors"


def main(folder: str, backend: str = "softmax", encoder: str = ENCODER) -> None:
    """Write small.safetensors and small.BACKEND.safetensors beside the encoder."""
    model = make_model("small", backend)
    load_encoder(model, Path(encoder))
    load_parts(model, Path(folder))
    publish(model, Path(encoder), "small")


if __name__ == "__main__":
    main(*sys.argv[1:])
