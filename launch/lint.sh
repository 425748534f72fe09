#!/usr/bin/env bash
# Lint: style, format, who imports whom. Called by test.sh; under a minute.
set -euo pipefail
source "$(dirname "$0")/venv.sh"

"$python" -m ruff check .
"$python" -m ruff format --check .
"$(dirname "$python")/lint-imports" --no-logo
