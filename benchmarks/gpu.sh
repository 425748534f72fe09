#!/usr/bin/env bash
# Training XL on one GPU beside the torch.compile peer; adds what it measures to RESULTS.md.
#
#   bash benchmarks/gpu.sh                     XL at the batch that fits
#   CONFIG=configs/smoke.py BATCHES=32 bash benchmarks/gpu.sh --steps 2      anywhere, to try it
#
# `jax[cuda]`, this package and torch have to be installed; PYTHON names the interpreter. Batches are
# tried from the largest; one that does not fit in memory is said and passed over.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}
config=${CONFIG:-radit:size=xl,space=latent}
out=${OUT:-benchmarks/RESULTS.md}
mesh=(--config.mesh.fsdp=1)

for batch in ${BATCHES:-64 48 32 24 16 8}; do
  for remat in ${REMATS:-dots attention full}; do
    echo "benchmarks: $config, batch $batch, remat $remat"
    code=0
    "$python" -m benchmarks.train_step --config "$config" --batch "$batch" --out "$out" \
      "${mesh[@]}" --config.model.remat="$remat" "$@" || code=$?
    if [ "$code" != 69 ]; then exit "$code"; fi # 69: it does not fit
  done
done
echo "benchmarks: error: no batch of ${BATCHES:-64 48 32 24 16 8} fits" >&2
exit 69
