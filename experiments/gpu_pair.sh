#!/bin/bash
# Two runs side by side on a machine with two GPUs, to learn which of two ways is better:
#   OUT=folder bash experiments/gpu_pair.sh "options of both" "options of a" "options of b"
# Options are those of experiments/train_small.py. Leaves a/ and b/ (weights) and logs.tar.gz.
here=$(dirname "$0")
export SITE=/tmp/site TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" \
  .whl/lightning-*.whl .whl/jsonargparse-*.whl .whl/docstring_parser-*.whl .whl/einops-*.whl || exit 1
for n in 0 1; do
  name=$([ $n = 0 ] && echo a || echo b)
  extra=$([ $n = 0 ] && echo "$2" || echo "$3")
  mkdir -p /tmp/pair/$name
  # One run's workers leave the other its half of the cores.
  CUDA_VISIBLE_DEVICES=$n OUT=/tmp/pair/$name taskset -c $((n * 16))-$((n * 16 + 15)) \
    bash "$here/gpu_train.sh" --workers 14 $1 $extra 2>&1 | sed -u "s/^/$name /" &
done
wait
for name in a b; do mkdir -p "$OUT/$name"; cp /tmp/pair/$name/*.safetensors "$OUT/$name/"; done
tar -C /tmp/pair --exclude='*.safetensors' -czf "$OUT/logs.tar.gz" a b
