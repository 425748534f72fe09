#!/usr/bin/env bash
# On a worker: asks the trainer to save and waits for it to end; kills it after two minutes.
set -euo pipefail
state=$HOME/rfxray
pid=$(cat "$state/supervisor.pid" 2>/dev/null || true)
# After a reboot the id may belong to another process.
grep -qs rfxray.runtime.supervise "/proc/$pid/cmdline" || exit 0
kill -TERM "$pid"
for _ in $(seq "${STOP_SECONDS:-120}"); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 1
done
# The whole session that setsid made: supervisor, trainer and reader processes.
pkill -KILL -s "$pid" || true
rm -f "$state/supervisor.pid"
