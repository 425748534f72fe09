#!/usr/bin/env bash
# Starts training on every worker, detached, or resumes it.
#
#   bash launch/tpu/run.sh [--dry-run] -- --config radit:size=xl,space=pixel …
#
# The flags after -- are those of rfxray.train, without --workdir, which is RUN in the bucket. Logs and
# status are collected there. A trainer that still runs on the workers is asked to save and stopped
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
  fail 75 "not every worker of $NAME started; run setup.sh first if it has not run"
[ -n "$dry_run" ] ||
  say "attempt $attempt runs on every worker of $NAME; logs.sh shows its log, results are in $BUCKET/$RUN"
