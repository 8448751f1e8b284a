#!/bin/bash
# One run on two GPUs; should it not be learning after PATIENCE seconds, it goes on with one.
#   OUT=folder bash experiments/gpu_two.sh SECONDS [options of experiments/train_small.py]
seconds=$1; shift
patience=${PATIENCE:-170}
here=$(dirname "$0")
began=$(date +%s)
setsid bash "$here/gpu_train.sh" --devices 2 --seconds "$seconds" "$@" &
run=$!
while kill -0 $run 2>/dev/null; do
  sleep 2
  if [ $(($(date +%s) - began)) -ge "$patience" ]; then
    grep -q '^step' "$OUT/log.txt" 2>/dev/null && break
    echo "two GPUs: no step after $patience s; one goes on"
    kill -9 -- -$run
    break
  fi
done
if wait $run; then exit 0; fi
gone=$(($(date +%s) - began))
echo "on one GPU, for what is left of $seconds s"
exec bash "$here/gpu_train.sh" --seconds $((seconds - gone)) "$@"
