#!/usr/bin/env bash
# Deletes the slice. The run stays in the bucket and resumes on the next slice.
#
#   bash launch/tpu/delete.sh [--now] [--dry-run]
#
# The trainer is asked to save and has two minutes for it; --now skips that. Stop a babysitter first,
# or it creates the slice again.
source "$(dirname "$0")/gcloud.sh"

now=
for word in "$@"; do
  case $word in
    --dry-run) dry_run=yes ;;
    --now) now=yes ;;
    *) usage "$word" ;;
  esac
done

if [ -z "$now" ]; then
  TRIES=1 on_hosts all stop "$workdir" || say "could not ask the hosts to save; the run resumes from its last checkpoint"
fi
if queued; then
  # --force also deletes the slice that belongs to the request.
  words=(queued-resources delete "$NAME" --force)
else
  words=(tpu-vm delete "$NAME")
fi
answer='NOT_FOUND|was not found' retry "$TRIES" compute tpus "${words[@]}" "${place[@]}" --quiet ||
  fail 75 "could not delete $NAME; see the message of gcloud above"
[ -n "$dry_run" ] || say "$NAME is deleted; the run is in $BUCKET/$RUN"
