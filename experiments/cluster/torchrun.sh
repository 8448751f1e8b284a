#!/bin/bash
# A fit on one host, or on several with this started on each:
#   NODES=2 RANK=0 HOST=first-host bash experiments/cluster/torchrun.sh [options of vggt3 fit]
set -euo pipefail
GPUS=${GPUS:-8} NODES=${NODES:-1} RANK=${RANK:-0} HOST=${HOST:-localhost}
exec torchrun --nproc_per_node "$GPUS" --nnodes "$NODES" --node_rank "$RANK" \
  --rdzv_backend c10d --rdzv_endpoint "$HOST:29400" \
  -m vggt3 fit --config "$(dirname "$0")/${CONFIG:-ddp}.yaml" \
  --trainer.devices "$GPUS" --trainer.num_nodes "$NODES" "$@"
