#!/bin/bash
# What a machine that is lent for half an hour does, in the background: the ablation, then the adapter
# goes on for what is left of SECONDS, with the convolutions that the ablation found better and the
# fast weights' kernel that is faster there:
#   cp -r . /tmp/tree; cd /tmp/tree
#   OUT=/tmp/leg setsid nohup bash experiments/gpu_session.sh SECONDS MINUTES SEED [options] \
#     >/dev/null 2>&1 </dev/null &
#   sleep 5; OUT=$OUT bash experiments/gpu_wait.sh 560        and so on, in calls that follow at once
# MINUTES is the most that the ablation may take; options are those of the adapter's leg. Both kernels
# are tried for TRY seconds, each on a GPU; what that compiles the leg need not.
here=$(dirname "$0") seconds=$1 minutes=$2 seed=$3
shift 3
mkdir -p "$OUT"
bash "$here/gpu_ablate.sh" "$minutes" "${EXPERIMENT:-$here/ablation.yaml}" >"$OUT/out-1.txt" 2>&1
echo "ablation ended with $? after $SECONDS s" >>"$OUT/out-1.txt"

chosen=$(PYTHONPATH=${SITE:-/tmp/site}:src ${PYTHON:-python3} "$here/choose_convolved.py" \
  "$here/ablation.yaml" "${WORK:-/tmp/ablation}" 2>>"$OUT/out-1.txt")
set -- "$@" $chosen
echo "the adapter's further options: ${chosen:-none}" >>"$OUT/out-1.txt"

try() { # KERNEL GPU
  local place=${TRIED:-/tmp/try}-$1
  GPUS=1 CUDA_VISIBLE_DEVICES=$2 LEGS=$place/legs OUT=$place bash "$here/gpu_leg.sh" \
    adapter "${TRY:-150}" "$seed" "${@:3}" --attention.fast_kernel "$1" --every 20 --val-batches 1 >/dev/null 2>&1
}
rate() { grep -o '[0-9.]*/s' "${TRIED:-/tmp/try}-$1/log.txt" 2>/dev/null | tail -1 | tr -d '/s'; }
try torch 0 "$@" &
try triton 1 "$@" &
wait
torch=$(rate torch) triton=$(rate triton)
kernel=$(awk "BEGIN {print (${triton:-0} > ${torch:-0}) ? \"triton\" : \"torch\"}")
echo "scenes/s on one GPU: torch ${torch:-none}, triton ${triton:-none}; after $SECONDS s" >"$OUT/out-2.txt"
for way in torch triton; do tail -5 "${TRIED:-/tmp/try}-$way/out.txt" >>"$OUT/out-2.txt"; done

left=$((seconds - SECONDS - 60))
[ $left -ge 120 ] && bash "$here/gpu_leg.sh" adapter $left "$seed" "$@" --attention.fast_kernel $kernel
echo "session ended after $SECONDS s" >>"$OUT/ended.txt"
