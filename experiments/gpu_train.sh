#!/bin/bash
# Trains on a bare GPU machine with PyTorch: wheels from .whl, no network.
#   OUT=folder bash experiments/gpu_train.sh [options of experiments/train_small.py]
# Without torch.compile: COMPILE= bash …. Everything is written under $OUT, each file below 16 MiB:
# trunk-*.safetensors, encoder-*.safetensors where it learns, adapter.safetensors, log.txt, profile.txt.
set -o pipefail
SITE=${SITE:-/tmp/site}
if [ -d .whl ] && [ ! -d "$SITE" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" \
    .whl/lightning-*.whl .whl/jsonargparse-*.whl .whl/docstring_parser-*.whl .whl/einops-*.whl \
    || exit 1
fi
export PYTHONPATH=$SITE:src PYTHONUNBUFFERED=1
# Threads that wait for others' cores take them from whoever compiles and draws scenes.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null
exec ${PYTHON:-python3} experiments/train_small.py --output "$OUT" \
  --encoder src/vggt3/weights/small.encoder.safetensors ${COMPILE---compile} "$@"
