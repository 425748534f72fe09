#!/usr/bin/env bash
# The whole path on one CPU machine: phantoms → training → samples → figures, in under 15 minutes.
#
#   bash launch/smoke.sh            writes runs/smoke/report.html
#   bash launch/smoke.sh --latent   the path through latents: autoencoder, encode, training, samples,
#                                   with phantoms and oracle of smoke.sh if they are there, in about
#                                   15 minutes; writes runs/smoke/latent_figures.json and latent.png
#   bash launch/smoke.sh --plumbing the path through latents in minutes, with networks that learn
#                                   nothing, into runs/plumbing
#   SMOKE=DIR bash launch/smoke.sh  writes DIR/report.html; DIR is relative to where you stand
#
# After an interruption run it again: every stage resumes.
set -euo pipefail
began=$SECONDS
what=pixels
case ${1-} in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
  --latent | --plumbing) what=${1#--} && shift ;;
esac
[ $# = 0 ] || {
  echo "smoke.sh: error: it takes --latent, --plumbing or nothing (got $1); see --help" >&2
  exit 78
}
case ${SMOKE-} in '' | /*) ;; *) SMOKE=$PWD/$SMOKE ;; esac
source "$(dirname "$0")/venv.sh"

out=${SMOKE:-runs/smoke}
[ "$what" != plumbing ] || out=${SMOKE:-runs/plumbing}
mkdir -p "$out"
stage() { echo "smoke: $((SECONDS - began)) s: $*"; }
train() { forward "$python" -m rfxray.train --config "$1" --workdir "$out/$2" "${@:3}"; }

cores=$("$python" -c 'import os
print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')

draw_phantoms() { # NUMBER
  stage "drawing phantoms"
  forward "$python" -m data_prep.phantom --out "$out/phantom" --n "$1" --size 64 --seed 0 \
    --workers "$cores"
}

train_oracle() {
  [ ! -f "$out/oracle.npz" ] || return 0
  stage "training the oracle on phantoms of another seed"
  forward "$python" -m data_prep.phantom.oracle --out "$out/oracle.npz" --size 64 --seed 1 --epochs 6
}

in_pixels() {
  stage "training"
  train smoke train --config.data.dirs="$out/phantom"

  stage "sampling"
  forward "$python" -m rfxray.sample --checkpoint "$out/train" --out "$out/samples" --n 2 --steps 16 \
    --grid view=PA,AP,lateral --grid cardiomegaly=absent,present

  train_oracle
  stage "measuring"
  forward "$python" -m benchmarks.smoke_report "$out"
}

encode() {
  if [ ! -f "$out/vae_export/export.json" ]; then
    stage "exporting the autoencoder"
    forward "$python" -m rfxray export --checkpoint "$out/vae" --out "$out/vae_export" \
      --data "$out/phantom"
  fi
  stage "encoding"
  forward "$python" -m rfxray encode --data "$out/phantom" --vae "$out/vae_export" \
    --out "$out/latents"
}

if [ "$what" = plumbing ]; then
  # Small enough for minutes; the second training on latents resumes the first.
  few=(--config.log_every=4 --config.optim.warmup=2 --config.evaluators.validation_loss.batches=1)
  draw_phantoms 200
  stage "training an autoencoder for 8 steps"
  train rad_vae:size=tiny vae --config.data.dirs="$out/phantom" --config.steps=8 "${few[@]}"
  encode
  for steps in 6 12; do
    stage "training on latents, to step $steps"
    train smoke:space=latent latent_train --config.data.dirs="$out/latents" "${few[@]}" \
      --config.steps="$steps" --config.optim.schedule=constant --config.optim.decay=0
  done
  stage "sampling"
  forward "$python" -m rfxray.sample --checkpoint "$out/latent_train" --out "$out/latent_samples" \
    --n 4 --steps 4
  echo "smoke ok: from phantoms through latents to $out/latent_samples; nothing was measured"
  exit
fi

draw_phantoms 16384
if [ "$what" = pixels ]; then
  in_pixels
  exit
fi
train_oracle
stage "training the autoencoder"
train rad_vae:size=tiny vae --config.data.dirs="$out/phantom"
encode
stage "training on latents"
train smoke:space=latent latent_train --config.data.dirs="$out/latents"
stage "measuring"
forward "$python" -m benchmarks.latent_report "$out"
