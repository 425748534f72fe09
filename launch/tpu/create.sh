#!/usr/bin/env bash
# Creates the slice of env.sh, or queues a request for it.
#
#   bash launch/tpu/create.sh [--dry-run]
#
# KIND=on-demand and KIND=spot wait until the slice is ready. KIND=queued and KIND=queued-spot return
# when the request is queued; babysit.sh waits for it.
source "$(dirname "$0")/gcloud.sh"

only_dry_run "$@"

if queued; then
  words=(queued-resources create "$NAME" --node-id="$NAME" --runtime-version="$VERSION")
else
  words=(tpu-vm create "$NAME" --version="$VERSION")
fi
words+=("${place[@]}" --accelerator-type="$TYPE")
[[ $KIND != *spot ]] || words+=(--spot)
# A call that seemed to fail may have created it.
answer='ALREADY_EXISTS|already exists' retry "$CREATE_TRIES" compute tpus "${words[@]}" ||
  fail 75 "could not create $NAME; see the message of gcloud above"
[ -n "$dry_run" ] ||
  say "$NAME ($TYPE, $KIND) in $ZONE: $(queued && echo queued || echo ready)"
