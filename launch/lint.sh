#!/usr/bin/env bash
# Lint: style, format, words, imports between rooms, the pages. Called by test.sh; under a minute.
#
# TYPES=1 also checks types.
set -euo pipefail
source "$(dirname "$0")/venv.sh"
bin=$(dirname "$python")

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m tests.words
"$bin/lint-imports" --no-logo
NO_MKDOCS_2_WARNING=1 "$bin/mkdocs" build --strict --quiet
[ -z "${TYPES-}" ] || "$bin/basedpyright" --pythonpath "$python"
