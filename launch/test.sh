#!/usr/bin/env bash
# Lint and the test suite, in a .venv that is made where there is none.
#
#   bash launch/test.sh                   everything but the long drills
#   bash launch/test.sh -m drill          the drills
#   bash launch/test.sh tests/rfxray -x   any pytest arguments
set -euo pipefail
source "$(dirname "$0")/venv.sh"

# The whole suite goes to two workers, a file to each at a time; what is picked by hand to none.
[ $# -gt 0 ] || set -- -n 2 --dist loadfile

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest "$@"
