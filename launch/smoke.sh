#!/usr/bin/env bash
# The whole path on one CPU machine: phantoms → training → samples → figures, in under 15 minutes.
#
#   bash launch/smoke.sh            writes runs/smoke/report.html
#   SMOKE=DIR bash launch/smoke.sh  writes DIR/report.html; DIR is relative to where you stand
#
# After an interruption run it again: every stage resumes.
set -euo pipefail
began=$SECONDS
case ${1-} in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
[ $# = 0 ] || {
  echo "smoke.sh: error: it takes no arguments (got $1); see --help" >&2
  exit 78
}
case ${SMOKE-} in '' | /*) ;; *) SMOKE=$PWD/$SMOKE ;; esac
source "$(dirname "$0")/venv.sh"

out=${SMOKE:-runs/smoke}
mkdir -p "$out"
stage() { echo "smoke: $((SECONDS - began)) s: $*"; }

cores=$("$python" -c 'import os
print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')
stage "drawing phantoms"
forward "$python" -m data_prep.phantom --out "$out/phantom" --n 16384 --size 64 --seed 0 \
  --workers "$cores"

stage "training"
forward "$python" -m rfxray.train --config smoke --workdir "$out/train" \
  --config.data.dirs="$out/phantom"

stage "sampling"
forward "$python" -m rfxray.sample --checkpoint "$out/train" --out "$out/samples" --n 2 --steps 16 \
  --grid view=PA,AP,lateral --grid cardiomegaly=absent,present

if [ ! -f "$out/oracle.npz" ]; then
  stage "training the oracle on phantoms of another seed"
  forward "$python" -m data_prep.phantom.oracle --out "$out/oracle.npz" --size 64 --seed 1 --epochs 6
fi

stage "measuring"
forward "$python" -m benchmarks.smoke_report "$out"
