#!/usr/bin/env bash
# Prints in one word whether the slice can be used.
#
#   bash launch/tpu/slice.sh [--dry-run]
#
# ready    its workers can be used
# coming   it is being created, or is queued
# gone     it was preempted or stopped; delete what is left (delete.sh --now)
# absent   it does not exist
source "$(dirname "$0")/gcloud.sh"

only_dry_run "$@"

# state WORDS…: prints the state of the slice or of its request, empty if there is none
state() { answer='NOT_FOUND|was not found' retry "$TRIES" compute tpus "$@" "${place[@]}"; }

if queued; then
  found=$(state queued-resources describe "$NAME" '--format=value(state.state)') ||
    fail 75 "could not read the state of the request for $NAME; see the message of gcloud above"
  case $found in
    ACTIVE) ;;
    'gcloud '*) echo "$found" ;; # the command itself, with --dry-run
    '') echo absent && exit ;;
    SUSPENDING | SUSPENDED | FAILED) echo gone && exit ;;
    *) echo coming && exit ;;
  esac
fi
found=$(state tpu-vm describe "$NAME" '--format=value(state)') ||
  fail 75 "could not read the state of $NAME; see the message of gcloud above"
case $found in
  READY) echo ready ;;
  'gcloud '*) echo "$found" ;;
  '') queued && echo gone || echo absent ;;
  PREEMPTED | TERMINATED | STOPPED) echo gone ;;
  *) echo coming ;;
esac
