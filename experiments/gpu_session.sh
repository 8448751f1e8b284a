#!/bin/bash
# What a machine that is lent for half an hour does, in the background: the ablation, then the adapter
# goes on for what is left of SECONDS:
#   cp -r . /tmp/tree; cd /tmp/tree
#   OUT=/tmp/leg setsid nohup bash experiments/gpu_session.sh SECONDS MINUTES SEED [options] \
#     >/dev/null 2>&1 </dev/null &
#   sleep 5; OUT=$OUT bash experiments/gpu_wait.sh 560        and so on, in calls that follow at once
# MINUTES is the most that the ablation may take; options are those of the adapter's leg.
here=$(dirname "$0") seconds=$1 minutes=$2 seed=$3
shift 3
mkdir -p "$OUT"
bash "$here/gpu_ablate.sh" "$minutes" "${EXPERIMENT:-$here/ablation.yaml}" >"$OUT/out-ablation.txt" 2>&1
echo "ablation ended with $? after $SECONDS s" >>"$OUT/out-ablation.txt"
left=$((seconds - SECONDS - 60))
[ $left -ge 120 ] && bash "$here/gpu_leg.sh" adapter $left "$seed" "$@"
echo "session ended after $SECONDS s" >>"$OUT/ended.txt"
