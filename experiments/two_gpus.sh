#!/bin/bash
# Two GPUs beside one of them: how much faster, the same result, and what is left when one dies.
#   OUT=folder bash experiments/two_gpus.sh [options of vggt3 benchmark]
# On a machine with two GPUs, from the root of the tree (wheels in .whl, if any, no network). Under
# $OUT: one.jsonl, two.jsonl, ratio.txt, reconstruct.txt, death.txt.
set -o pipefail
SITE=${SITE:-/tmp/site}
if [ -d .whl ] && [ ! -d "$SITE" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" \
    .whl/*.whl || exit 1
fi
export NCCL_NVLS_ENABLE=0 # NVLink multicast can put a host's GPUs, which others share, out of service
export PYTHONPATH=$SITE:$PWD/src PYTHONUNBUFFERED=1
OUT=$(realpath "${OUT:-/tmp/two_gpus}")
mkdir -p "$OUT"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
pair() { python3 -m torch.distributed.run --nproc-per-node 2 --master-port 29517 -m vggt3 "$@"; }
alone() { CUDA_VISIBLE_DEVICES=0 python3 -m vggt3 "$@"; }
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
nvidia-smi topo -m | head -4

echo "== the ratio (goal: at least 1.9)"
what=(--preset vggt_1b --size 392x518 --views 2000 --attention ttt_shortconv --sweeps 2 --repeat 3)
alone benchmark "${what[@]}" "$@" -o "$OUT/one.jsonl" --again || exit 1
pair benchmark "${what[@]}" "$@" -o "$OUT/two.jsonl" --again || exit 1
python3 - "$OUT" <<'E2' | tee "$OUT/ratio.txt"
import sys
from pathlib import Path

from vggt3.evaluation.benchmark.rows import latest, read_rows

def what(row):
    names = ("attention", "sweeps", "size", "precision")
    return (row.views, *(str(row.facts[name]) for name in names))

one, two = (
    {what(row): row for row in latest(read_rows(Path(sys.argv[1]) / name)).values()}
    for name in ("one.jsonl", "two.jsonl")
)
for key, row in one.items():
    other = two[key]
    if row.seconds is None or other.seconds is None:
        print(*key, "no ratio:", row.problem or other.problem)
        continue
    print(*key, f"1 GPU {row.seconds:.3f} s, 2 GPUs {other.seconds:.3f} s,",
          f"ratio {row.seconds / other.seconds:.3f}")
    for stage, seconds in row.facts["stages"].items():
        print(f"    {stage:10} {seconds:8.3f} {other.facts['stages'].get(stage, 0.0):8.3f}")
    print(f"    {'GiB':10} {row.peak_bytes / 2**30:8.2f} {other.peak_bytes / 2**30:8.2f}")
E2

echo "== the same scene: 33 photos, fp32, by one and by two"
cd "$scratch" || exit 1
python3 - <<'E2'
from pathlib import Path
import numpy as np
from PIL import Image
Path("photos").mkdir()
for n in range(33):
    size = (518, 392) if n % 3 else (392, 518)
    coarse = np.random.default_rng(n).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(f"photos/{n:02d}.jpg")
E2
for attention in ttt_shortconv softmax; do
  given=(photos --preset small --precision fp32 --attention $attention --overwrite)
  alone reconstruct "${given[@]}" -o one >/dev/null || exit 1
  pair reconstruct "${given[@]}" -o two >/dev/null || exit 1
  python3 - $attention <<'E2' | tee -a "$OUT/reconstruct.txt"
import sys
import numpy as np
with np.load("one/scene.npz") as a, np.load("two/scene.npz") as b:
    assert a.files == b.files
    worst = max((float(np.linalg.norm(a[n] - b[n]) / np.linalg.norm(a[n])), n) for n in a.files)
print(sys.argv[1], f"relative L2 between one and two GPUs, worst of {len(a.files)} maps:", *worst)
E2
done

echo "== a rank is killed: the other names it, nothing is left"
(pair reconstruct photos --preset vggt_1b --long-side 518 --chunk 1 -o dead >death.txt 2>&1
 echo "exit code $?" >>death.txt) &
for _ in $(seq 600); do
  compgen -G '.dead.partial*' >/dev/null && break
  sleep 0.1
done
sleep 0.3
for process in /proc/[0-9]*; do
  if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q 'vggt3 reconstruct photos' &&
    tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qx 'LOCAL_RANK=1'; then
    kill -9 "${process#/proc/}"
    killed=$(date +%s)
    break
  fi
done
wait
{
  grep -h 'vggt3: \|exit code' death.txt
  echo "seconds from the kill to the end: $(($(date +%s) - ${killed:-0}))"
  echo "left: $(ls -A | grep dead | tr '\n' ' ')"
} | tee "$OUT/death.txt"
