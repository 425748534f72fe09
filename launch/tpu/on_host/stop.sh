#!/usr/bin/env bash
# On a worker: asks the trainer to save and waits for it; after two minutes it is killed.
set -euo pipefail
state=$HOME/rfxray
pid=$(cat "$state/supervisor.pid" 2>/dev/null || true)
# After a reboot the number may be another process's.
grep -qs rfxray.runtime.supervise "/proc/$pid/cmdline" || exit 0
kill -TERM "$pid"
for _ in $(seq "${STOP_SECONDS:-120}"); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 1
done
# The session that setsid gave it: supervisor, trainer and reader processes.
pkill -KILL -s "$pid" || true
rm -f "$state/supervisor.pid"
