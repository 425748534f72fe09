#!/usr/bin/env bash
# Shows what a worker's trainer said.
#
#   bash launch/tpu/logs.sh [HOST]            of the last attempts, from the bucket (default: host 0)
#   bash launch/tpu/logs.sh --follow [HOST]   as it is written, from the worker
#   bash launch/tpu/logs.sh --status          the report of every host, one JSON a line; none: nothing
#
# --dry-run prints the command instead.
source "$(dirname "$0")/gcloud.sh"

host='' what=bucket
for word in "$@"; do
  case $word in
    --dry-run) dry_run=yes ;;
    --follow) what=worker ;;
    --status) what=status ;;
    -*) usage "$word" ;;
    *)
      [ -z "$host" ] || usage "$word"
      host=$word
      ;;
  esac
done
host=${host:-0}
settle host '[0-9]{1,5}' 'the number of a host'

case $what in
  bucket) retry "$TRIES" storage cat "$BUCKET/$RUN/logs/*/host-$host.log" ;;
  status) answer='matched no objects' retry "$TRIES" storage cat "$BUCKET/$RUN/status/host-*.json" ;;
  worker)
    call compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker="$host" \
      --command="tail -n 100 -F rfxray/supervisor.log"
    ;;
esac
