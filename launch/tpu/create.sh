#!/usr/bin/env bash
# Creates the slice of env.sh, or asks the queue for it.
#
#   bash launch/tpu/create.sh [--dry-run]
#
# KIND=on-demand and KIND=spot wait until the slice is ready. KIND=queued and KIND=queued-spot return
# once the request stands in the queue; babysit.sh waits for it.
source "$(dirname "$0")/gcloud.sh"

case ${1-} in
  --dry-run) dry_run=yes ;;
  '') ;;
  *) usage "${1-}" ;;
esac

if queued; then
  words=(queued-resources create "$NAME" --node-id="$NAME" --runtime-version="$VERSION")
else
  words=(tpu-vm create "$NAME" --version="$VERSION")
fi
words+=("${place[@]}" --accelerator-type="$TYPE")
[[ $KIND != *spot ]] || words+=(--spot)
retry "$CREATE_TRIES" compute tpus "${words[@]}" || fail 75 "no slice $NAME"
say "$NAME ($TYPE, $KIND) in $ZONE: $(queued && echo "in the queue" || echo "created")"
