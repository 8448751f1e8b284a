#!/bin/bash
# A leg of the small model's training on a bare machine that is lent for ten minutes a call, on all
# of its GPUs:
#   OUT=folder bash experiments/gpu_leg.sh go_on|finish|adapter SECONDS SEED [options of train_small.py]
# go_on and finish move everything, the encoder at a tenth of the rate (which stays up, or falls);
# adapter fits ttt_shortconv to what they left, with softmax as its teacher. A leg goes on from what
# an earlier one left in /tmp/legs (calls that follow within 30 s find the machine as it was, with its
# compiled graphs), else in .carry/start, else from what ships. SECONDS: at least 60 less than the
# call may take, or more in the background (gpu_wait.sh). Batches of as many pictures of one size share most of what is compiled.
leg=$1 seconds=$2 seed=$3
shift 3
began=$SECONDS
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/inductor}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-/tmp/triton}
export NCCL_NVLS_ENABLE=0 # NVLink multicast can put a host's GPUs, which others share, out of service
shipped=src/vggt3/weights legs=${LEGS:-/tmp/legs}
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
gpus=$((gpus > 1 ? gpus : 1))
workers=$(($(env -u OMP_NUM_THREADS nproc) / gpus - 2))
workers=$((workers > 14 ? 14 : workers < 0 ? 0 : workers))
first() { for place in "$@"; do [ -e "$place" ] && echo "$place" && return; done; }
start=$shipped/small.safetensors
for place in "$legs/backbone" .carry/start; do
  [ -e "$place/trunk-1.safetensors" ] && start=$place && break
done
# What training scenes have beside the exam's look (LOOK=exam for that alone): lenses, clutter, wires,
# bare and shiny surfaces, cameras that turn in place or go ahead, JPEG, the light of photographs.
look=(--fov-deg '[35,90]' --clutter '[0,8]' --thin '[0,6]' --repeated 0.15 --weak 0.1 --glossy 0.15
  --turns 0.05 --advances 0.1 --jpeg '[40,98]' --exposure 0.25 --white-balance 0.07)
[ "${LOOK:-photographs}" = photographs ] || look=()
options=("${look[@]}" --method muon --record --samples 4 --normals 0.1 --dropped 0 --tail 10 --sky 0.2 --dense-every 2 --minutes 1.5
  --every 100 --compiling 60 --val-batches 4 --workers "$workers" --devices "$gpus" --seed "$seed" --start "$start"
  --recipes "${RECIPES:-8@168x168*36:4,24@168x168*12:1,48@168x168*6:1,8@154x224*28:1,8@224x168*27:1}")
[ -d .carry/textures ] && options+=(--textures .carry/textures)
case $leg in
  go_on) place=backbone options+=(--train encoder --lr 6e-4 --warmup 100 --decay 0) ;;
  finish) place=backbone options+=(--train encoder --lr 6e-4 --warmup 100 --decay 0.45) ;;
  adapter) place=adapter
    options+=(--recipes "${RECIPES:-8@168x168*36:3,48@168x168*6:1,288@168x168*1:1,8@154x224*28:1}"
      --train adapter --attention ttt_shortconv --attention.sweeps 2 --attention.initial learned
      --attention.gate true --attention.newton_schulz 3
      --teacher 10 --lr 1.5e-3 --warmup 50 --decay 0.8 --adapter "$(first "$legs/adapter/adapter.safetensors" \
        .carry/adapter.safetensors $shipped/small.ttt_shortconv.safetensors)") ;;
  *) echo "no such leg: $leg" >&2; exit 2 ;;
esac
out=$OUT work=$legs/$leg-$seed
mkdir -p "$out" "$work"
ended=$out/${ENDED:-ended.txt}
rm -f "$ended"
changes=$([ "$leg" = adapter ] && echo adapter || echo '*')
copy() {
  bash "$(dirname "$0")/copy_newer.sh" "$out" "$work"/$changes.safetensors "$work"/{log,profile}.txt
}
while sleep 10; do copy; done &
copier=$!
echo "$leg from $start, $gpus GPUs, $workers workers each"
OUT=$work timeout -k 10 $((seconds + 50)) bash "$(dirname "$0")/gpu_train.sh" \
  --seconds "$seconds" "${options[@]}" "$@" >"$out/out.txt" 2>&1
code=$?
kill $copier
copy
[ -e "$work/adapter.safetensors" ] && rm -rf "${legs:?}/$place" && cp -r "$work" "$legs/$place"
grep -v -i warn "$out/out.txt" >"$work/said.txt"
head -6 "$work/said.txt"; echo …; tail -25 "$work/said.txt"
echo "$leg ended with $code after $((SECONDS - began)) s" | tee "$ended"
exit $code
