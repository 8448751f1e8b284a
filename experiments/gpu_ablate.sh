#!/bin/bash
# A leg of an ablation on a bare GPU machine with PyTorch that is lent for minutes at a time:
#   OUT=folder bash experiments/gpu_ablate.sh MINUTES experiments/ablation.yaml [options]
# Goes on from .carry/ablation.tgz, if that is there, and leaves $OUT/ablation.tgz for the next leg,
# beside table.md and plot.png. Every GPU of the machine does a share of the rows. What is there is
# packed every minute, so that little is lost where the machine goes before the leg ends.
set -o pipefail
minutes=$1
shift
python=${PYTHON:-python3} SITE=${SITE:-/tmp/site} work=${WORK:-/tmp/ablation}
if [ -d .whl ] && [ ! -d "$SITE" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" \
    .whl/lightning-*.whl .whl/jsonargparse-*.whl .whl/docstring_parser-*.whl .whl/einops-*.whl \
    || exit 1
fi
export PYTHONPATH=$SITE:src PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/inductor}  # rows share most graphs
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
mkdir -p "$OUT" "$work"
[ -f .carry/ablation.tgz ] && tar -xzf .carry/ablation.tgz -C "$work"

pack() {  # a file that changes meanwhile is tar's code 1: it is replaced whole, so either is good
  tar -czf "$OUT/packing" -C "$work" --exclude '*/.?*' . 2>/dev/null
  [ $? -le 1 ] && mv "$OUT/packing" "$OUT/ablation.tgz"
  cp "$work"/table.md "$work"/plot.png "$OUT" 2>/dev/null
}

gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
shares=$((gpus > 1 ? gpus : 1))
cores=$(env -u OMP_NUM_THREADS nproc)
while sleep 60; do pack; done >/dev/null 2>&1 &
packer=$!
legs=()
for ((n = 1; n <= shares; n++)); do
  CUDA_VISIBLE_DEVICES=$((n - 1)) "$python" -m vggt3 ablate "$@" -o "$work" \
    --row "$n/$shares" --minutes "$minutes" --cache "${CACHE:-/tmp/rooms}" \
    --workers $((gpus > 0 ? (cores - 1) / shares : 0)) >/dev/null &
  legs+=($!)
done
failed=0
for leg in "${legs[@]}"; do wait "$leg" || failed=1; done
kill "$packer" 2>/dev/null
pack
cat "$work/table.md"
exit $failed
