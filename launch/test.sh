#!/usr/bin/env bash
# Lint and the test suite, in a .venv that is made if there is none.
#
#   bash launch/test.sh                   lint, and everything except the long drills
#   bash launch/test.sh suite             the same without lint
#   bash launch/test.sh -m drill          the drills
#   bash launch/test.sh tests/rfxray -x   any pytest arguments
set -euo pipefail
source "$(dirname "$0")/venv.sh"

[ $# -gt 0 ] || bash launch/lint.sh
# Suite and drills run on two workers: a file at a time, because its tests share fixtures, or a
# drill at a time. Tests picked by hand run in one process.
case $* in
  '' | suite) set -- -n 2 --dist loadfile ;;
  '-m drill') set -- -m drill -n 2 --dist worksteal ;;
esac
"$python" -m pytest "$@"
