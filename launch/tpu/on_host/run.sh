#!/usr/bin/env bash
# On a worker: starts the supervisor of the trainer, detached. Called by ../run.sh.
#
#   run.sh WORKDIR ATTEMPT FLAGS…     FLAGS of rfxray.train
#
# A supervisor of the same attempt keeps running, so that the call may be repeated; any other is
# stopped first, and so is a trainer that has lost its supervisor.
set -euo pipefail
workdir=$1 attempt=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=$HOME/rfxray
cd "$here/../../.."

# The number of this worker and how many there are, from the metadata of the machine.
metadata() {
  curl -fsS -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
host=$(metadata agent-worker-number)
hosts=$(metadata worker-network-endpoints | tr ',' '\n' | grep -c .)

pid=$(cat "$state/supervisor.pid" 2>/dev/null || true)
if grep -qs rfxray.runtime.supervise "/proc/$pid/cmdline" && [ "$(cat "$state/attempt")" = "$attempt" ]; then
  echo "host $host of $hosts: attempt $attempt runs already"
  exit
fi
bash "$here/stop.sh" "$workdir"

python=.venv/bin/python
[ -x "$python" ] || python=${PYTHON:?no .venv: run setup.sh first}
setsid nohup "$python" -m rfxray.runtime.supervise --workdir "$workdir" \
  --host "$host" --hosts "$hosts" --attempt "$attempt" -- \
  "$python" -m rfxray.train "$@" --workdir "$workdir" \
  >"$state/supervisor.log" 2>&1 </dev/null &
echo $! >"$state/supervisor.pid"
echo "$attempt" >"$state/attempt"
# The supervisor reports before it starts the trainer, or ends: so a workdir that cannot be written
# fails here.
for _ in $(seq 300); do
  ! grep -qsF "\"attempt\": \"$attempt\"" "$workdir/status/host-$host.json" || break
  kill -0 $! 2>/dev/null || break
  sleep 0.2
done
if ! kill -0 $! 2>/dev/null; then
  wait $! || { code=$? && cat "$state/supervisor.log" >&2 && exit "$code"; }
fi
echo "host $host of $hosts: attempt $attempt, supervisor $!"
