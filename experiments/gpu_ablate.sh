#!/bin/bash
# A leg of an ablation on a bare GPU machine with PyTorch that is lent for minutes:
#   OUT=folder bash experiments/gpu_ablate.sh MINUTES experiments/ablation.yaml [options]
# Goes on from .carry/ablation.tgz, if that is there, and leaves $OUT/ablation.tgz for the next leg
# (with table.md and plot.png in it), and adapters that wait for their scores in adapters.tgz.00 and
# so on, of 15 MB, eight at most. Every GPU of the machine serves PER_GPU processes (one for each 26
# GB): one trains (42 GB), the others score; a row that found no memory is tried again. What is there
# is packed every minute, so that little is lost where the machine goes before the leg ends.
# Times a view are taken last, when every GPU has one process, in two further minutes. MINUTES bind:
# a process that hangs is ended.
set -o pipefail
minutes=$1
shift
end=$((SECONDS + 60 * minutes))
python=${PYTHON:-python3} SITE=${SITE:-/tmp/site} work=${WORK:-/tmp/ablation}
cache=${CACHE:-/tmp/rooms}
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
if [ -f .carry/adapters.tgz.00 ]; then
  cat .carry/adapters.tgz.* >"$work/.adapters.tgz"
  tar -tzf "$work/.adapters.tgz" >/dev/null && tar -xzf "$work/.adapters.tgz" -C "$work"
  rm "$work/.adapters.tgz"
fi

pack() {  # a file that changes meanwhile is tar's code 1: it is replaced whole, so either is good
  tar -czf "$OUT/packing" -C "$work" --exclude '*/.?*' --exclude '*.safetensors' . 2>/dev/null
  [ $? -le 1 ] && mv "$OUT/packing" "$OUT/ablation.tgz"
  (cd "$work" && ls -rt fits/[!.]*.safetensors 2>/dev/null | head -8 | tar -czT - 2>/dev/null) \
    | split -d -b 15M - "$OUT/.adapters.tgz."
  rm -f "$OUT"/adapters.tgz.*
  for piece in "$OUT"/.adapters.tgz.*; do mv "$piece" "$OUT/${piece##*/.}"; done
  cp "$work"/table.md "$work"/plot.png "$OUT" 2>/dev/null
}

left() { awk "BEGIN {printf \"%.2f\", ($end - $SECONDS) / 60}"; }

share() {  # NUMBER OF OPTIONS…: one process's rows, on a GPU
  local number=$1 of=$2 tries code
  shift 2
  for tries in 1 2 3; do
    [ $((end - SECONDS)) -ge 30 ] || return 1
    CUDA_VISIBLE_DEVICES=$(((number - 1) % gpus)) timeout -k 10 $((end - SECONDS + 60)) \
      "$python" -m vggt3 ablate "$@" -o "$work" --row "$number/$of" --minutes "$(left)" \
      --cache "$cache" --workers 0 >/dev/null
    code=$?
    [ $code -ge 124 ] || [ $code = 0 ] && return $code
    sleep "${PAUSE:-15}"
  done
  return 1
}

together() {  # LEGS OPTIONS…: as many processes, the GPUs' first ones ahead: they compile for all
  local of=$1 number legs=() failed=0 leg
  shift
  for ((number = 1; number <= of; number++)); do
    [ "$number" -eq $((gpus + 1)) ] && sleep "${AHEAD:-75}"
    share "$number" "$of" "$@" &
    legs+=($!)
  done
  for leg in "${legs[@]}"; do wait "$leg" || failed=1; done
  return $failed
}

gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -1)
gpus=$((gpus > 1 ? gpus : 1))
per=${PER_GPU:-$((${memory:-0} / 26000))}
per=$((per > 1 ? per : 1))
cores=$(env -u OMP_NUM_THREADS nproc)
threads=$((cores / gpus / per / 2))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 1 ? threads : 1))}
"$python" experiments/render_exam.py "$1" "$cache" $((cores / 2)) >&2 &
while sleep 60; do pack; done >/dev/null 2>&1 &
packer=$!
together $((gpus * per)) "$@" --times none --take-turns
failed=$?
end=$((end > SECONDS + 120 ? end : SECONDS + 120))
together "$gpus" "$@" --times only || failed=1
kill "$packer" 2>/dev/null
pack
cat "$work/table.md"
exit $failed
