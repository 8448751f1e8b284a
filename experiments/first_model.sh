#!/bin/bash
# One leg of the small model's training on two GPUs that are lent for ten minutes at a time:
#   OUT=folder bash experiments/first_model.sh begin|go_on|finish|adapter SECONDS SEED
# A leg goes on from .carry/start (what an earlier one left under its OUT) or, without one, from
# the shipped weights; `begin` from random ones. The learning rate stays up until the leg `finish`;
# `adapter` fits ttt_shortconv to the backbone.
leg=$1 seconds=$2 seed=$3
here=$(dirname "$0")
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/inductor}
options=(--seed "$seed" --samples 4 --normals 0.1 --dropped 0 --dense-every 2 --every 100
  --minutes 2 --method muon --record --workers 14
  --recipes '8@168x168*32:2,8@126x168*42:1,8@168x126*42:1,16@168x168*16:1' --val-batches 4)
start=.carry/start
[ -d $start ] || start=src/vggt3/weights/small.safetensors
case $leg in
  begin) options+=(--train all --lr 1e-3 --warmup 500 --decay 0) ;;
  go_on) options+=(--train all --lr 1.4e-3 --warmup 100 --decay 0 --start $start) ;;
  finish) options+=(--train all --lr 1.4e-3 --warmup 100 --decay 0.6 --start $start) ;;
  adapter) options+=(--train adapter --attention ttt_shortconv --lr 1e-3 --warmup 50 --decay 0.7
    --start $start) ;;
  *) echo "no such leg: $leg" >&2; exit 2 ;;
esac
exec bash "$here/gpu_two.sh" "$seconds" "${options[@]}"
