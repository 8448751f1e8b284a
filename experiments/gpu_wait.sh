#!/bin/bash
# Waits at most SECONDS for a leg that an earlier call has started in the background, and brings
# home what it has left so far, every half minute; calls that follow at once keep the machine, and the
# leg goes on:
#   OUT=folder bash experiments/gpu_wait.sh SECONDS [FOLDER OF THE LEG]
# A leg that outlives its call has its own session and its own copy of the tree:
#   cp -r . /tmp/tree; cd /tmp/tree
#   OUT=/tmp/leg setsid nohup bash experiments/gpu_leg.sh … >/dev/null 2>&1 </dev/null &
until=$((SECONDS + $1)) leg=${2:-/tmp/leg}
[ -d "$leg" ] || { echo "no leg in $leg: another machine?" >&2; exit 2; }
mkdir -p "$OUT"

bring() { # eight files may come home
  tar -czf "$leg/.told" -C "$leg" --exclude log.txt --exclude '*.safetensors' --exclude '*.tgz*' \
    --exclude './.*' . 2>/dev/null
  mv "$leg/.told" "$leg/told.tgz"
  bash "$(dirname "$0")/copy_newer.sh" "$OUT" "$leg"/*.safetensors "$leg"/*.tgz* "$leg"/log.txt
}

for ((n = 0; SECONDS < until; n++)); do
  [ -e "$leg/ended.txt" ] && break
  ((n % 15 == 0)) && bring
  sleep 2
done
bring
nvidia-smi --query-gpu=memory.used,utilization.gpu --format=csv,noheader 2>/dev/null
for told in "$leg"/out*.txt; do grep -v -i warn "$told" | tail -15; done
cat "$leg/ended.txt" 2>/dev/null || echo "goes on"
