#!/usr/bin/env bash
# Measures training of XL on one GPU beside the torch.compile peer; appends the result to RESULTS.md.
#
#   bash benchmarks/gpu.sh                                              XL at the largest batch that fits
#   CONFIG=smoke BATCHES=32 bash benchmarks/gpu.sh --steps 2            a quick try on any machine
#
# Install the extras `cuda` and `peers` first; PYTHON selects the interpreter. Batches are tried from
# the largest; one that does not fit in memory is reported and skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/forward.sh

python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}
config=${CONFIG:-radit:size=xl,space=latent}
out=${OUT:-benchmarks/RESULTS.md}
mesh=(--config.mesh.fsdp=1)

for batch in ${BATCHES:-64 48 32 24 16 8}; do
  for remat in ${REMATS:-dots attention full}; do
    echo "benchmarks: $config, batch $batch, remat $remat"
    code=0
    forward "$python" -m benchmarks.train_step --config "$config" --batch "$batch" --out "$out" \
      "${mesh[@]}" --config.model.remat="$remat" "$@" || code=$?
    if [ "$code" != 69 ]; then exit "$code"; fi # 69: it does not fit
  done
done
echo "benchmarks: error: no batch of ${BATCHES:-64 48 32 24 16 8} fits; set BATCHES to smaller ones" >&2
exit 69
