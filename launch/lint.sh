#!/usr/bin/env bash
# Lint: style, format, words, imports between rooms, the pages, types. Called by test.sh; it takes
# one to two minutes.
set -euo pipefail
source "$(dirname "$0")/venv.sh"
bin=$(dirname "$python")

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m tests.words
"$bin/lint-imports" --no-logo
NO_MKDOCS_2_WARNING=1 "$bin/mkdocs" build --strict --quiet
"$bin/basedpyright" --pythonpath "$python"
