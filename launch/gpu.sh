#!/usr/bin/env bash
# Trains on every GPU of this host under a supervisor, which resumes after a fault.
#
#   bash launch/gpu.sh [--dry-run] --workdir DIR --config radit:size=b,space=pixel …
#
# The flags are those of rfxray.train. First run `python3 -m venv .venv && .venv/bin/pip install -e
# '.[cuda]'` (PYTHON selects another interpreter). SIGTERM and Ctrl-C save and end with 75; the same
# command resumes. RESTARTS (default 3) is how many restarts in a row may bring no step forward.
#
# Paths are relative to where you stand.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
  echo "gpu.sh: error: $*" >&2
  exit 78
}

dry_run=''
if [ "${1-}" = --help ]; then
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
elif [ "${1-}" = --dry-run ]; then
  dry_run=yes
  shift
fi
workdir='' previous=''
for word in "$@"; do
  [ "$previous" != --workdir ] || workdir=$word
  [[ $word != --workdir=* ]] || workdir=${word#--workdir=}
  previous=$word
done
[ -n "$workdir" ] || fail "no --workdir was given; add --workdir DIR (bash launch/gpu.sh --help)"

python=${PYTHON:-$root/.venv/bin/python}
# Python finds this checkout also from another folder.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
command=("$python" -m rfxray.runtime.supervise --workdir "$workdir" --restarts "${RESTARTS:-3}" --
  "$python" -m rfxray.train "$@")
if [ -n "$dry_run" ]; then
  printf '%q ' "${command[@]}"
  echo
  exit
fi
command -v "$python" >/dev/null || fail "there is no $python; create .venv as --help says, or set PYTHON"
message=$("$python" -c 'import jax; jax.devices("gpu")' 2>&1) ||
  fail "$python finds no GPU through JAX (${message##*$'\n'}); install the extra cuda as --help says, and check nvidia-smi"
exec "${command[@]}"
