#!/usr/bin/env bash
# On a worker: asks the trainer to save and waits for it to end; kills it after two minutes.
#
#   stop.sh WORKDIR
#
# It stops the supervisor of this worker, then every trainer that holds WORKDIR from this worker: one
# that has lost its supervisor too.
set -euo pipefail
workdir=$1
state=$HOME/rfxray
seconds=${STOP_SECONDS:-120}
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

pid=$(cat "$state/supervisor.pid" 2>/dev/null || true)
# After a reboot the id may belong to another process.
if grep -qs rfxray.runtime.supervise "/proc/$pid/cmdline"; then
  kill -TERM "$pid"
  for _ in $(seq "$seconds"); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 1
  done
  # The whole session that setsid made: supervisor, trainer and reader processes.
  pkill -KILL -s "$pid" || true
  rm -f "$state/supervisor.pid"
fi

python=.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}
"$python" -S -m rfxray.runtime.stop --workdir "$workdir" --seconds "$seconds"
