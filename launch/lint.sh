#!/usr/bin/env bash
# Lint: style, format, words, imports between rooms, the pages, types. Called by test.sh; it takes
# one to two minutes.
set -euo pipefail
case ${1-} in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
source "$(dirname "$0")/venv.sh"
bin=$(dirname "$python")

forward "$python" -m ruff check .
forward "$python" -m ruff format --check .
forward "$python" -m tests.words
forward "$bin/lint-imports" --no-logo
NO_MKDOCS_2_WARNING=1 forward "$bin/mkdocs" build --strict --quiet
forward "$bin/basedpyright" --pythonpath "$python"
