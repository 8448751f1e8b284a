#!/bin/bash
# What a machine that is lent for half an hour does, in the background: the ablation, then the adapter
# goes on for what is left of SECONDS, with the convolutions that the ablation found better:
#   cp -r . /tmp/tree; cd /tmp/tree
#   OUT=/tmp/leg setsid nohup bash experiments/gpu_session.sh SECONDS MINUTES SEED [options] \
#     >/dev/null 2>&1 </dev/null &
#   sleep 5; OUT=$OUT bash experiments/gpu_wait.sh 560        and so on, in calls that follow at once
# MINUTES is the most that the ablation may take, two for the times apart; options are those of the
# adapter's leg. It begins with the Triton fast weights; where that has made no steps after FIRST
# seconds, it begins again with those of plain torch.
here=$(dirname "$0") seconds=$1 minutes=$2 seed=$3
shift 3
experiment=${EXPERIMENT:-$here/ablation.yaml}
mkdir -p "$OUT"
bash "$here/gpu_ablate.sh" "$minutes" "$experiment" >"$OUT/out-1.txt" 2>&1
echo "ablation ended with $? after $SECONDS s" >>"$OUT/out-1.txt"

chosen=$(PYTHONPATH=${SITE:-/tmp/site}:src ${PYTHON:-python3} "$here/choose_convolved.py" \
  "$experiment" "${WORK:-/tmp/ablation}" 2>>"$OUT/out-1.txt")
set -- "$@" $chosen
echo "the adapter's further options: ${chosen:-none}" >>"$OUT/out-1.txt"

leg() { # KERNEL OPTIONS…, in the background
  ENDED=ended-leg.txt setsid bash "$here/gpu_leg.sh" adapter $((seconds - SECONDS - 60)) "$seed" "${@:2}" \
    --attention.fast_kernel "$1" >"$OUT/out-2.txt" 2>&1 &
  group=$!
}
steps() { grep -q '^step ' "$OUT/log.txt" 2>/dev/null; }

rm -f "$OUT/log.txt"
leg triton "$@"
until steps || [ -e "$OUT/ended-leg.txt" ] || ((++waited > ${FIRST:-260})); do sleep 1; done
if ! steps; then
  { echo "no step with triton after $waited s"; tail -20 "$OUT/out.txt"; } >>"$OUT/out-1.txt"
  pkill -TERM -s $group
  sleep 5
  pkill -KILL -s $group
  leg torch "$@"
fi
wait $group
echo "session ended after $SECONDS s" >"$OUT/ended.txt"
