#!/usr/bin/env bash
# Shows what the trainer of a host printed.
#
#   bash launch/tpu/logs.sh [HOST]            logs of all attempts, from the bucket (default: host 0)
#   bash launch/tpu/logs.sh --follow [HOST]   log of the worker, as it is written
#   bash launch/tpu/logs.sh --status          report of every host, one JSON object per line
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
