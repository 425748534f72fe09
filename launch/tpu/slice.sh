#!/usr/bin/env bash
# Says in one word whether the slice can be used.
#
#   bash launch/tpu/slice.sh [--dry-run]
#
# ready    its workers can be used
# coming   it is being created, or stands in the queue
# gone     it was preempted or stopped; its remains have to be deleted (delete.sh --now)
# absent   there is none
source "$(dirname "$0")/gcloud.sh"

for word in "$@"; do
  case $word in
    --dry-run) dry_run=yes ;;
    *) usage "$word" ;;
  esac
done

# state WORDS…: of the slice or of the request for it, empty if there is none
state() { answer='NOT_FOUND|was not found' retry "$TRIES" compute tpus "$@" "${place[@]}"; }

if queued; then
  found=$(state queued-resources describe "$NAME" '--format=value(state.state)') ||
    fail 75 "the state of the request for $NAME could not be read"
  case $found in
    ACTIVE) ;;
    'gcloud '*) echo "$found" ;; # the command, under --dry-run
    '') echo absent && exit ;;
    SUSPENDING | SUSPENDED | FAILED) echo gone && exit ;;
    *) echo coming && exit ;;
  esac
fi
found=$(state tpu-vm describe "$NAME" '--format=value(state)') ||
  fail 75 "the state of $NAME could not be read"
case $found in
  READY) echo ready ;;
  'gcloud '*) echo "$found" ;;
  '') queued && echo gone || echo absent ;;
  PREEMPTED | TERMINATED | STOPPED) echo gone ;;
  *) echo coming ;;
esac
