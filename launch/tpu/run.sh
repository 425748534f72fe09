#!/usr/bin/env bash
# Starts training on every worker, detached, or resumes it.
#
#   bash launch/tpu/run.sh [--dry-run] -- --config radit:size=xl,space=pixel …
#
# After -- stand the flags of rfxray.train, all but --workdir, which is RUN in the bucket. Logs and
# status are collected there. A run that is still going on the workers is asked to save and stops
# first.
source "$(dirname "$0")/gcloud.sh"

while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=yes ;;
    --) break ;;
    *) usage "$1" ;;
  esac
  shift
done
[ $# -gt 1 ] || usage
shift

attempt=${RFXRAY_ATTEMPT:-$(date -u +%Y%m%dT%H%M%SZ)}
settle attempt '[0-9TZ.]+' 20260102T030405Z
on_hosts all run "$workdir" "$attempt" "$@" ||
  fail 75 "not every worker of $NAME started; has setup.sh run?"
[ -n "$dry_run" ] ||
  say "attempt $attempt runs on every worker of $NAME; see logs.sh, or $BUCKET/$RUN"
