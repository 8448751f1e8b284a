#!/bin/bash
# One leg of the small model's training, made for a machine lent for ten minutes at a time:
#   OUT=folder bash experiments/first_model.sh begin|go_on|finish|adapter SECONDS SEED
# Every leg but the first goes on from .carry/start (what an earlier leg left under its OUT). The
# learning rate stays up until the leg `finish`; `adapter` fits ttt_shortconv to its backbone.
leg=$1 seconds=$2 seed=$3
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/inductor}
options=(--seconds "$seconds" --seed "$seed" --samples 4 --normals 0.1 --dropped 0
  --dense-every 2 --every 100 --minutes 1)
backbone=(--train all --lr 1e-3 --recipes '8@168x168*32:3,16@168x168*16:0.6,8@168x224*24:1')
case $leg in
  begin) options+=("${backbone[@]}" --warmup 500 --decay 0 --profile 600) ;;
  go_on) options+=("${backbone[@]}" --warmup 100 --decay 0 --start .carry/start) ;;
  finish) options+=("${backbone[@]}" --warmup 100 --decay 0.7 --start .carry/start) ;;
  adapter) options+=(--train adapter --attention ttt_shortconv --lr 5e-4 --warmup 100
    --start .carry/start) ;;
  *) echo "no such leg: $leg" >&2; exit 2 ;;
esac
exec bash "$(dirname "$0")/gpu_train.sh" "${options[@]}"
