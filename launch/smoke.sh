#!/usr/bin/env bash
# The whole path on one CPU machine: phantoms → training → samples → figures, in under 15 minutes.
#
#   bash launch/smoke.sh            writes runs/smoke/report.html
#   SMOKE=DIR bash launch/smoke.sh  writes DIR/report.html
#
# After an interruption run it again: every stage resumes.
set -euo pipefail
began=$SECONDS
source "$(dirname "$0")/venv.sh"

out=${SMOKE:-runs/smoke}
mkdir -p "$out"
stage() { echo "smoke: $((SECONDS - began)) s: $*"; }

stage "drawing phantoms"
forward "$python" -m data_prep.phantom --out "$out/phantom" --n 16384 --size 64 --seed 0 \
  --workers "$(nproc)"

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
