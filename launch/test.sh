#!/usr/bin/env bash
# Lint and the test suite, in a .venv that is created if needed.
#
#   bash launch/test.sh                   lint, and everything except the long drills
#   bash launch/test.sh suite             everything except lint and the long drills
#   bash launch/test.sh -m drill          the drills
#   bash launch/test.sh tests/rfxray -x   any pytest arguments
set -euo pipefail
case ${1-} in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
source "$(dirname "$0")/venv.sh"

[ $# -gt 0 ] || forward bash launch/lint.sh
# The suite runs on two workers, a file at a time because the tests of a file share fixtures; drills
# run on two workers, a drill at a time. Selected tests run in one process.
case $* in
  '' | suite) set -- -n 2 --dist loadfile ;;
  '-m drill') set -- -m drill -n 2 --dist worksteal ;;
esac
exec "$python" -m pytest "$@"
